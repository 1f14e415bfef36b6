"""Frames before and after the networks: colour, detail, alpha, output size."""
