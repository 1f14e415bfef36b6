"""ComfyUI's progress, cancel and device management, as plain functions for the core."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management as mm
import comfy.utils
from comfy_api.latest import io

log = logging.getLogger(__name__)


def load_models(patchers: Sequence[Any], memory_required: int = 0) -> None:
    """Bring models to the device within ComfyUI's own budget; it decides what has to leave."""
    mm.load_models_gpu(list(patchers), memory_required=memory_required)


def progress_bar(total: int) -> Callable[..., None]:
    """``progress(done, total, preview=None)`` on the node that is running."""
    bar = comfy.utils.ProgressBar(total)

    def progress(done: int, total: int, preview: Any = None) -> None:
        bar.update_absolute(done, total, preview)

    return progress


def check_cancelled() -> None:
    """Raise ComfyUI's interrupt if the user has pressed Cancel. Never to be swallowed."""
    mm.throw_exception_if_processing_interrupted()


def show_status(node: type[io.ComfyNode], text: str) -> None:
    """Write on the running node, where this ComfyUI can, and into the log."""
    log.info("%s", text)
    show_text(node, text)


def show_text(node: type[io.ComfyNode], text: str) -> None:
    """Write on the running node, where this ComfyUI can."""
    hidden = getattr(node, "hidden", None)
    number = getattr(hidden, "unique_id", None)
    prompt = getattr(hidden, "dynprompt", None)
    if prompt is not None and number is not None:
        # A node that another one runs inside writes on that one, which is on the page.
        number = prompt.get_display_node_id(number)
    # Loaded wherever there is a page to write on; not imported for those who run nodes without.
    running = getattr(sys.modules.get("server"), "PromptServer", None)
    server = getattr(running, "instance", None)
    if server is not None and number is not None:
        server.send_progress_text(text, number)
