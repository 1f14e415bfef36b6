"""Frames before and after the networks: colour, alpha, output size."""
