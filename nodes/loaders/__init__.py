"""Nodes that load weights and look for them."""
