"""Writes the shipped workflows from one description."""
