"""Benchmarks: the pack against plain eager code; run by ``scripts/bench.py``."""
