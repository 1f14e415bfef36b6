"""Nodes for videos of any length."""
