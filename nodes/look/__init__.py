"""Nodes for looking: previews, comparisons, scenes."""
