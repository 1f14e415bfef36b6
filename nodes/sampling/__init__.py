"""Nodes from conditioning to decoded frames, and what patches a MODEL."""
