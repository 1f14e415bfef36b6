"""The phases of `gpu_check.py`, one module each, and the code that runs and reports them."""
