"""Upscale-A-Video nodes for ComfyUI."""

# ComfyUI imports this folder as a package; test runners may import the file on its own, without
# ComfyUI around it.
if __package__:
    from .nodes import comfy_entrypoint

    __all__ = ["comfy_entrypoint"]
