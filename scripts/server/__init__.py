"""Control of a real ComfyUI server."""
