"""Encodes parts, and joins them into the finished file."""
