"""Benchmarks: the pack against plain eager code, and long videos; run by ``scripts/bench.py``."""
