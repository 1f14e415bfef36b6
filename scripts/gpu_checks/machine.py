"""Description of the machine for the report."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from typing import Any

import psutil
import torch
from torch.utils._triton import has_triton

from bench.measure.machine import describe
from scripts.env.layout import ROOT

from .place import Place


def describe_machine(place: Place) -> dict[str, Any]:
    """GPU, driver, versions and free memory, by name."""
    found: dict[str, Any] = {
        key: value for key, value in describe(place.device).items() if value is not None
    }
    memory = psutil.virtual_memory()
    found["memory_gib"] = round(memory.total / 2**30, 1)
    found["memory_free_gib"] = round(memory.available / 2**30, 1)
    if place.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(place.device)
        major, minor = torch.cuda.get_device_capability(place.device)
        found["gpu_memory_free_gib"] = round(free / 2**30, 1)
        found["compute_capability"] = f"{major}.{minor}"
        found["cuda"] = torch.version.cuda
        found["cudnn"] = torch.backends.cudnn.version()
        query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        found["driver"] = next(iter(said(*query).splitlines()), "unknown")
    version = place.comfyui / "comfyui_version.py"
    found["comfyui"] = "unknown"
    if version.is_file():
        found["comfyui"] = runpy.run_path(str(version)).get("__version__", "unknown")
    found["triton"] = has_triton()
    found["pack"] = said("git", "-C", str(ROOT), "describe", "--always", "--dirty") or "unknown"
    return found


def said(*command: str) -> str:
    """Output of a program; empty if there is no such program, or it fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
