"""The phases of `gpu_check.py`, one module each, and what runs and reports them."""
