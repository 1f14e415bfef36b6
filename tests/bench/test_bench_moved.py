"""What a pass asks of a card, counted: the networks' fast way keeps few kernels and bytes."""

from __future__ import annotations

import pytest
import torch

from bench.measure.kernels import count_moved
from bench.studies.moved import measure_moved
from bench.studies.report import moved_table

# Kernels and GB, at most 3 % above what docs/benchmarks.md has.
BOUNDS = {
    ("plain norms", "U-Net pass, fp16"): (1778, 380),
    ("plain norms", "decode, fp16"): (376, 146),
    ("plain norms", "decode, fp32"): (374, 298),
    ("plain norms", "included U-Net pass, fp16"): (954, 25.3),
    ("plain norms", "included decode, fp16"): (303, 83),
    ("fused norms", "U-Net pass, fp16"): (1364, 332),
    ("fused norms", "decode, fp16"): (243, 118),
    ("fused norms", "decode, fp32"): (240, 237),
    ("fused norms", "included U-Net pass, fp16"): (720, 20.5),
    ("fused norms", "included decode, fp16"): (197, 67.6),
    ("", "built-in flow, 33 frames"): (16200, 276),
    ("", "a step beside the U-Net, 33 frames"): (3200, 4),
}


def test_a_card_gets_few_kernels_and_moves_few_bytes():
    ways = measure_moved()
    for way in ways:
        for work, moved in way.work.items():
            kernels, gigabytes = BOUNDS[way.title, work]
            assert 0.9 * kernels < moved.kernels <= kernels, (way.title, work, moved.by_operation)
            assert 0.9 * gigabytes < moved.bytes / 1e9 <= gigabytes, (way.title, work, moved)
    plain, fused, _ = (way.work for way in ways)
    for work, moved in fused.items():
        # The kernels add nearly all biases of convolutions on the way.
        assert moved.biases[1] < 0.2 * plain[work].biases[1], work
    lines = moved_table(ways).splitlines()
    assert len(lines) == 14 and len({line.count("|") for line in lines}) == 1


def test_counting():
    x, y = (torch.empty(4, 1024, device="meta") for _ in range(2))
    size = 4 * x.numel()
    assert count_moved(lambda: x + y).bytes == 3 * size
    assert count_moved(lambda: torch.add(x, y, out=torch.empty_like(x))).bytes == 3 * size
    moved = count_moved(lambda: x.add_(y[:1].expand(4, -1)).t().view(1024, 2, 2))
    assert (moved.kernels, moved.bytes) == (1, 2 * size + size // 4)


@pytest.mark.parametrize("shape", [(2, 8, 6, 6), (2, 8, 3, 6, 6)])
def test_convolutions_keep_the_channels_last(shape):
    kind = {4: torch.nn.Conv2d, 5: torch.nn.Conv3d}[len(shape)]
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}[len(shape)]
    conv, found = kind(8, 16, 3, padding=1, device="meta"), []
    x = torch.empty(shape, device="meta").contiguous(memory_format=layout)
    count_moved(lambda: found.append(conv(x)))
    assert found[0].is_contiguous(memory_format=layout)
