"""Encoded parts, and the file that they are joined to."""
