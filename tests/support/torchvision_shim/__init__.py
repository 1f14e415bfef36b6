"""A custom node folder for the tests only; `prestartup_script.py` does its work."""

NODE_CLASS_MAPPINGS: dict[str, type] = {}
