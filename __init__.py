"""Upscale-A-Video nodes for ComfyUI."""

# ComfyUI serves it at /extensions/<folder of the pack>; its page reads a node's help from
# docs/<node id>.md there, and runs every script below it.
WEB_DIRECTORY = "./web"

# ComfyUI imports this folder as a package; test runners may import the file on its own, without
# ComfyUI around it.
if __package__:
    from .nodes import comfy_entrypoint

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
