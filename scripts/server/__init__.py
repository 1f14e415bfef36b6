"""A real ComfyUI, driven from outside."""
