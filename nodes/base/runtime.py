"""ComfyUI's progress, cancel and device management, as plain functions for the core."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import comfy.model_management as mm
import comfy.utils
from comfy_api.latest import io

from ...uav_core.callbacks import ignore
from ...uav_core.sampling.ladder import Ladder, Setting, StepDown, run_with_fallback

T = TypeVar("T")

log = logging.getLogger(__name__)


def load_models(patchers: Sequence[Any], memory_required: int = 0) -> None:
    """Load models to the device; ComfyUI decides which other models it unloads for them."""
    mm.load_models_gpu(list(patchers), memory_required=memory_required)


def stepping_down(
    work: Callable[[Setting], T], ladder: Ladder, on_step: Callable[[StepDown], None] = ignore
) -> T:
    """Run ``work(setting)``; if memory runs out, step down and call ``on_step`` with the step."""
    return run_with_fallback(work, ladder, mm.soft_empty_cache, on_step, ran_out)


def ran_out(error: BaseException) -> bool:
    """Whether ComfyUI classes an error as out of memory."""
    judge = getattr(mm, "is_oom", None)  # newer ComfyUI
    return judge is not None and bool(judge(error))


def device_room(device: Any) -> int:
    """Bytes of a device's memory; 0 (unknown) for the CPU, as the system can swap."""
    total: Any = mm.get_total_memory(device)
    return 0 if mm.is_device_cpu(device) else int(total)


def progress_bar(total: int) -> Callable[..., None]:
    """A function ``progress(done, total, preview=None)`` that reports on the running node."""
    bar = comfy.utils.ProgressBar(total)

    def progress(done: int, total: int, preview: Any = None) -> None:
        bar.update_absolute(done, total, preview)

    return progress


def check_cancelled() -> None:
    """Raise ComfyUI's interrupt if the user has pressed Cancel. Callers must not catch it."""
    mm.throw_exception_if_processing_interrupted()


def show_status(node: type[io.ComfyNode], text: str) -> None:
    """Write ``text`` on the running node, if this ComfyUI can, and to the log."""
    log.info("%s", text)
    show_text(node, text)


def show_text(node: type[io.ComfyNode], text: str) -> None:
    """Write ``text`` on the running node, if this ComfyUI can."""
    hidden = getattr(node, "hidden", None)
    number = getattr(hidden, "unique_id", None)
    prompt = getattr(hidden, "dynprompt", None)
    if prompt is not None and number is not None:
        # An expanded node is not on the page: write on the node that it was expanded from.
        number = prompt.get_display_node_id(number)
    # Not imported: ``server`` is loaded whenever there is a page, and not needed without one.
    running = getattr(sys.modules.get("server"), "PromptServer", None)
    server = getattr(running, "instance", None)
    if server is not None and number is not None:
        # Only to the page that asked for the run: in another, the number is another node's.
        server.send_progress_text(text, number, server.client_id)
