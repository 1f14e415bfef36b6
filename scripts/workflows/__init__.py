"""The shipped workflows, from one description."""
