"""ComfyUI's dynamic memory on a CPU, with a fake GPU and a fake of the library that pages it.

With them ComfyUI's own `ModelPatcherDynamic` and `comfy.ops` run as on an NVIDIA GPU: layers are
built without weights, keep the tensors of the file, and each weight is copied to "video memory" and
cast when it is used. Only comfy-aimdo's C library, which needs CUDA, and the check whether a tensor
is on the GPU are replaced.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch


class Card(str):
    """A device that is the CPU for PyTorch, and a GPU for ComfyUI."""

    type: Any = "cuda"
    index: Any = 0


CARD = Card("cpu")


class VideoMemory:
    """Pages of weights. A page that may be paged out is overwritten as soon as it is released."""

    pages_out = False

    def __init__(self, size: int, device: Any) -> None:
        self.given = 0
        self.faults = 0
        self.pages: dict[int, torch.Tensor] = {}
        self.generation = 0

    def alloc(self, size: int) -> tuple[VideoMemory, int, int]:
        self.given += 1
        self.pages[self.given] = torch.full((size,), 255, dtype=torch.uint8)
        return self, self.given, size

    def prioritize(self, *_: Any) -> None:
        pass

    def loaded_size(self) -> int:
        return sum(page.numel() for page in self.pages.values())

    def free_memory(self, size: int) -> int:
        """Page out everything."""
        self.generation += 1
        for page in self.pages.values():
            page.fill_(255)
        return self.loaded_size()


def fault(allocation: tuple[VideoMemory, int, int]) -> bytes:
    """The signature of the page; a new one at each call if no page stays."""
    memory, _, _ = allocation
    memory.faults += 1
    return (memory.faults if memory.pages_out else memory.generation).to_bytes(8, "little")


def no_page(allocation: tuple[VideoMemory, int, int]) -> None:
    """No signature: the weight does not get its page."""
    allocation[0].faults += 1


def unpin(allocation: tuple[VideoMemory, int, int] | None) -> None:
    if allocation is not None and allocation[0].pages_out:
        allocation[0].pages[allocation[1]].fill_(255)


class Stream:
    """A stream on which nothing is late: only whose buffer a weight is put into counts."""

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def wait_stream(self, _: Any) -> None:
        pass


class StreamBuffer:
    """The memory of a stream, into which each weight that does not stay is put at the start."""

    def __init__(self, *_: Any) -> None:
        self.pages = [torch.zeros(2**24, dtype=torch.uint8)]

    def size(self) -> int:
        return self.pages[0].numel()

    def get(self, size: int, offset: int = 0) -> tuple[StreamBuffer, int, int]:
        self.pages.append(self.pages[0][offset : offset + size])
        return self, len(self.pages) - 1, size


class HostBuffer:
    def __init__(self, *_: Any) -> None:
        self.size = 0


def is_there() -> bool:
    """Whether this ComfyUI has dynamic memory."""
    try:
        import comfy.memory_management
        import comfy.model_patcher
    except ImportError:
        return False
    return hasattr(comfy.model_patcher, "ModelPatcherDynamic")


def switch_on(monkeypatch: Any) -> None:
    """Set only ComfyUI's flags: layers are built without weights, all else is as on a CPU."""
    import comfy.memory_management
    import comfy.model_patcher

    monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", True)
    dynamic = comfy.model_patcher.ModelPatcherDynamic
    monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", dynamic)


def put_in(monkeypatch: Any, pages_out: bool, streams: bool = False) -> None:
    """Install the fake GPU too. With ``pages_out`` it is full, and no weight stays on it.

    With ``streams`` there is no page for any weight: each is copied into the memory of one of two
    streams, which take turns, and is overwritten by the next weight of that stream.
    """
    import comfy.model_management as mm
    import comfy.ops
    import comfy_aimdo.host_buffer
    import comfy_aimdo.model_vbar
    import comfy_aimdo.torch
    from comfy.cli_args import args

    switch_on(monkeypatch)
    monkeypatch.setattr(VideoMemory, "pages_out", pages_out)
    monkeypatch.setattr(comfy_aimdo.model_vbar, "ModelVBAR", VideoMemory)
    monkeypatch.setattr(comfy_aimdo.model_vbar, "vbar_fault", fault)
    monkeypatch.setattr(comfy_aimdo.model_vbar, "vbar_unpin", unpin)
    monkeypatch.setattr(comfy_aimdo.host_buffer, "HostBuffer", HostBuffer)
    monkeypatch.setattr(
        comfy_aimdo.torch, "aimdo_to_tensor", lambda given, device: given[0].pages[given[1]]
    )
    if streams:
        import comfy_aimdo.vram_buffer

        monkeypatch.setattr(comfy_aimdo.model_vbar, "vbar_fault", no_page)
        monkeypatch.setattr(comfy_aimdo.vram_buffer, "VRAMBuffer", StreamBuffer)
        monkeypatch.setattr(mm, "STREAMS", {CARD: [Stream(), Stream()]})
        monkeypatch.setattr(mm, "NUM_STREAMS", 2)
        monkeypatch.setattr(mm, "current_stream", lambda _: Stream())
        is_cpu = mm.is_device_cpu
        monkeypatch.setattr(
            mm, "is_device_cpu", lambda device: device is not CARD and is_cpu(device)
        )
    monkeypatch.setattr(args, "disable_pinned_memory", True)
    for name in ("get_torch_device", "vae_device"):
        monkeypatch.setattr(mm, name, lambda: CARD)
    plenty = 2**36
    monkeypatch.setattr(
        mm,
        "get_free_memory",
        lambda device=None, torch_free_too=False: (plenty, 0) if torch_free_too else plenty,
    )
    monkeypatch.setattr(mm, "get_total_memory", lambda *_: plenty)
    cast = comfy.ops.cast_bias_weight

    def cast_on_card(layer: Any, input: Any = None, dtype: Any = None, device: Any = None, *a, **k):
        return cast(layer, input, dtype, CARD, *a, **k)

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", cast_on_card)
    monkeypatch.setattr(mm, "current_loaded_models", [])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(mm, "cuda_device_context", lambda device: nullcontext(), raising=False)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: 0)
