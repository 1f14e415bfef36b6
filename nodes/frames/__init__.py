"""Nodes for frames before and after the networks."""
