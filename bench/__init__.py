"""Benchmarks: the pack against plain eager code, and long videos; run by ``python -m bench``."""
