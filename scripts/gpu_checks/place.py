"""Where the items of this process run: device, weights, ComfyUI and servers."""

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
"""A custom node that switches DynamicVRAM on, as far as a CPU can go."""


class Place:
    """What the items share; use it in a ``with`` block, which ends the servers."""

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
        """No GPU: everything runs small, to show that it runs."""
        return self.device.type == "cpu"

    @property
    def slack(self) -> float:
        """How much further off tiny random networks may be in low precision than real sizes are.

        Measured on a CPU: 0.28 in bf16 and 0.34 in fp8, where 0.06 and 0.3 hold else.
        """
        return 6.0 if self.tiny else 1.0

    @property
    def small_size(self) -> tuple[int, int, int]:
        """Frames, height and width of a clip for one network; some CPUs are slow in bf16."""
        return (2, 4, 4) if self.tiny else (3, 24, 32)

    @property
    def pack(self) -> Any:
        """The pack inside this process's ComfyUI."""
        assert self._pack is not None, "this phase asks for a process without ComfyUI"
        return self._pack

    @cached_property
    def clips(self) -> Path:
        """A folder for clips that items make."""
        folder = self.work / "clips"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def server(self, *options: str) -> ComfyServer:
        """A running server that was started with these options, and all else by default.

        It sees the models made here. One runs at a time; where it died, another takes its place.
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
        """Whether a server with these options has DynamicVRAM switched on by hand, on a CPU."""
        has_it = (self.comfyui / "comfy" / "memory_management.py").is_file()
        return self.tiny and has_it and not options

    def _is_dead(self) -> bool:
        assert self._server and self._server.process
        return self._server.process.poll() is not None

    def stop_server(self) -> None:
        """End the server, if one runs, and keep its log, after those of earlier ones."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            name = "".join(server.extra_args).replace("--", "-")
            with (self.out / f"server{name}.log").open("a", encoding="utf-8") as log:
                log.write(server.log_text())

    def tidy(self) -> None:
        """After an item: no models and no tensors stay on the device."""
        if self._pack is not None:
            import comfy.model_management as mm

            mm.unload_all_models()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.synchronize()  # an error that broke the device shows here
