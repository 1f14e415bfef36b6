"""The resources of the items in this process: device, weights, ComfyUI and servers."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from scripts.demo import lay_models
from scripts.env.layout import ROOT
from scripts.server.comfy_server import ComfyServer

from .weights import WeightFiles

DYNAMIC = ROOT / "tests" / "support" / "dynamic_vram"
"""A custom node that enables DynamicVRAM as far as a CPU allows."""


class Place:
    """Resources that items share; use it in a ``with`` block, which stops the servers."""

    def __init__(self, comfyui: Path, out: Path, work: Path, pack: ModuleType | None) -> None:
        self.comfyui, self.out, self.work = comfyui, out, work
        self._pack = pack
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.weights = WeightFiles(work / "models", self.device)
        self._server: ComfyServer | None = None

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_server()

    @property
    def tiny(self) -> bool:
        """Whether there is no GPU. Items then run on tiny inputs, only to show that they run."""
        return self.device.type == "cpu"

    @property
    def slack(self) -> float:
        """Factor of the bounds for tiny random networks in low precision.

        Differences measured on a CPU: 0.28 in bf16 and 0.34 in fp8; the bounds are 0.06 and 0.3.
        """
        return 6.0 if self.tiny else 1.0

    @property
    def small_size(self) -> tuple[int, int, int]:
        """Frames, height and width of a clip for one network; tiny on CPUs, often slow in bf16."""
        return (2, 4, 4) if self.tiny else (3, 24, 32)

    @property
    def pack(self) -> Any:
        """The pack, imported in this process's ComfyUI."""
        assert self._pack is not None, "this phase asks for a process without ComfyUI"
        return self._pack

    @cached_property
    def clips(self) -> Path:
        """A folder for clips that items make."""
        folder = self.work / "clips"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def server(self, *options: str) -> ComfyServer:
        """A running server with these options and defaults for all others.

        It sees the models made here. One server runs at a time; a dead one is replaced.
        """
        if self._server is not None and (self._server.extra_args != options or self._is_dead()):
            self.stop_server()
        if self._server is None:
            base = self.work / "server"
            base.mkdir(exist_ok=True)
            self.weights.models.mkdir(exist_ok=True)
            lay_models(base / "models", self.weights.models)
            server = ComfyServer(self.comfyui, Path(sys.executable), base, ROOT, options)
            if self.pretends_dynamic(options):
                server.packs[DYNAMIC.name] = DYNAMIC
            server.start()
            self._server = server
        return self._server

    def pretends_dynamic(self, options: Sequence[str]) -> bool:
        """Whether DYNAMIC enables DynamicVRAM on a server with these options, on a CPU."""
        has_it = (self.comfyui / "comfy" / "memory_management.py").is_file()
        return self.tiny and has_it and not options

    def _is_dead(self) -> bool:
        assert self._server and self._server.process
        return self._server.process.poll() is not None

    def stop_server(self) -> None:
        """Stop the server, if one runs, and append its log to server*.log."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            name = "".join(server.extra_args).replace("--", "-")
            with (self.out / f"server{name}.log").open("a", encoding="utf-8") as log:
                log.write(server.log_text())

    def tidy(self) -> None:
        """Free all models and tensors on the device, after an item."""
        if self._pack is not None:
            import comfy.model_management as mm

            mm.unload_all_models()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.synchronize()  # an error that broke the device shows here
