"""The measured numbers as JSON and as Markdown tables."""

from __future__ import annotations

import dataclasses
from typing import Any

from uav_core.sampling.segments import DECODE_GROUP, SEGMENT_LENGTH

from ..cases.case import Setup
from ..measure.compare import Result, Side
from ..measure.machine import Limits
from .moved import Way
from .precision import Precision
from .real_sizes import Held
from .scaling import Point, exponent

CALIBRATION_COLUMNS = {
    "bytes_per_position": "Bytes per position (b t h w)",
    "bytes_per_pixel": "Bytes per output pixel and frame",
    "asked": "Asked for, to the peak",
}


def as_json(
    machine: dict[str, Any], setup: Setup, limits: Limits, results: dict[str, Result]
) -> dict[str, Any]:
    """Everything measured, as plain data."""

    def side(s: Side) -> dict[str, Any]:
        return {**dataclasses.asdict(s), "median_seconds": s.median}

    return {
        "machine": machine,
        "setup": {"size": setup.size, "quick": setup.quick},
        "limits_flops_per_second": dataclasses.asdict(limits),
        "cases": {
            name: {
                "title": r.title,
                "pack": side(r.pack),
                "plain": side(r.plain),
                "time_ratio": r.time_ratio,
                "fastest_ratio": r.fastest_ratio,
                "memory_ratio": r.memory_ratio,
                "difference": r.difference,
                "flops": r.flops,
                "flops_per_second": r.speed,
                "calibration": r.calibration,
            }
            for name, r in results.items()
        },
    }


def as_markdown(
    machine: dict[str, Any], setup: Setup, limits: Limits, results: dict[str, Result]
) -> str:
    """The report as Markdown."""
    blocks = [machine_line(machine)]
    if setup.quick:
        blocks.append("**Quick run with tiny networks: these numbers say nothing about speed.**")
    blocks += [time_table(results), memory_table(results), speed_table(limits, results)]
    blocks += [calibration_table(r) for r in results.values() if r.calibration]
    return "\n\n".join(blocks) + "\n"


def machine_line(machine: dict[str, Any]) -> str:
    """One sentence about the machine."""
    gpu = machine["gpu"]
    where = f"{gpu} ({machine['gpu_memory_gib']} GiB), " if gpu else ""
    return (
        f"Measured on {where}{machine['cpu']}, {machine['cores']} cores "
        f"({machine['cpu_instructions']}, {machine['threads']} threads), {machine['system']}, "
        f"Python {machine['python']}, PyTorch {machine['torch']}; "
        f"load at the start {machine['load_at_start']}. fp32."
    )


def time_table(results: dict[str, Result]) -> str:
    """Table of median times with their spread."""
    rows = [
        [
            r.title,
            spread(r.plain),
            spread(r.pack),
            f"{r.time_ratio:.2f}",
            f"**{r.fastest_ratio:.2f}**",
            f"{r.difference:.0e}",
        ]
        for r in results.values()
    ]
    return table(
        [
            "Time, median (min - max)",
            "Plain eager",
            "Pack",
            "Pack / plain",
            "of the fastest runs",
            "Difference of the results",
        ],
        rows,
    )


def memory_table(results: dict[str, Result]) -> str:
    """Table of the peaks of live tensors, and of the allocator if measured."""
    rows = []
    for r in results.values():
        if r.plain.peak is None or r.pack.peak is None:
            continue
        plain, pack = r.plain.peak, r.pack.peak
        row = [r.title, mib(plain.live), mib(pack.live), f"**{r.memory_ratio:.2f}**"]
        if plain.allocated is None or pack.allocated is None:
            row += ["not measured"] * 3
        else:
            ratio = pack.allocated / plain.allocated
            row += [mib(plain.allocated), mib(pack.allocated), f"**{ratio:.2f}**"]
        rows.append(row)
    head = ["Peak memory", "Plain eager", "Pack", "Pack / plain"]
    return table([*head, "GPU allocator: plain", "pack", "pack / plain"], rows)


def speed_table(limits: Limits, results: dict[str, Result]) -> str:
    """Table of arithmetic speed beside the machine's best."""
    rows = [
        ["Best matrix product", "", gflops(limits.matmul), ""],
        ["Best 3x3 convolution", "", gflops(limits.convolution), "100 %"],
    ]
    for r in results.values():
        if r.flops:
            share = f"{100 * r.speed / limits.convolution:.0f} %"
            rows.append([r.title, f"{r.flops / 1e12:.3f}", gflops(r.speed), share])
    head = ["Arithmetic as written, fp32", "TFLOP", "GFLOP/s, fastest run"]
    return table([*head, "Of the best convolution"], rows)


def calibration_table(result: Result) -> str:
    """Table of memory by size."""
    columns = [name for name in CALIBRATION_COLUMNS if name in result.calibration[0]]
    rows = [
        [
            f"{entry['size']}x{entry['size']}",
            mib(entry["peak_live"] if entry["peak_allocated"] is None else entry["peak_allocated"]),
            *(number(entry[name]) for name in columns),
        ]
        for entry in result.calibration
    ]
    head = f"Calibration: {result.title.split(',')[0]}, latents of"
    return table([head, "Peak", *(CALIBRATION_COLUMNS[name] for name in columns)], rows)


def precision_table(rows: list[Precision]) -> str:
    """Table of time and PSNR of half precision."""
    head = ["Precision", "Fastest run", "To fp32", "PSNR to fp32"]
    cells = []
    for r in rows:
        likeness = f"{r.psnr:.1f} dB" if r.finite else "not finite"
        likeness = "" if r.title.endswith("float32") else likeness
        cells.append([r.title, f"{r.seconds:.3g} s", f"{r.time_ratio:.2f}", likeness])
    return table(head, cells)


def scaling_tables(points: dict[str, list[Point]]) -> str:
    """Tables of time and memory by frames and by pixels, with the exponent of growth."""
    blocks = []
    for what, row in points.items():
        cells = [
            [
                f"{p.frames} x {p.side}x{p.side}",
                f"{p.seconds:.3g} s",
                f"{1e6 * p.seconds / (p.frames * p.side**2):.3g}",
                mib(p.peak),
            ]
            for p in row
        ]
        head = [f"Growth with {what}", "Fastest run", "us a pixel and frame", "Peak memory"]
        power = f"Time grows with the power {exponent(row, what):.2f} of the {what}."
        blocks.append(table(head, cells) + "\n\n" + power)
    return "\n\n".join(blocks)


def real_sizes_table(rows: list[Held]) -> str:
    """Table of memory at common sizes; see ``bench.studies.real_sizes``."""
    head = f"GiB held by tensors, {SEGMENT_LENGTH} frames (decode {DECODE_GROUP})"
    cells = [[row.title, *map(gib, row.bytes.values())] for row in rows]
    return table([head, *rows[0].bytes], cells)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; columns after the first are aligned right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(side: Side) -> str:
    """Median (min - max) in a readable unit."""
    unit, scale = ("s", 1.0) if side.median >= 1 else ("ms", 1e3)
    low, mid, high = (scale * x for x in (min(side.seconds), side.median, max(side.seconds)))
    return f"{mid:.3g} {unit} ({low:.3g} - {high:.3g})"


def number(value: float) -> str:
    """A number as text: one decimal from 10 on, else three significant digits."""
    return f"{value:,.1f}" if value >= 10 else f"{value:.3g}"


def mib(count: int) -> str:
    """Bytes in MiB."""
    return f"{count / 2**20:,.1f} MiB"


def gib(count: int) -> str:
    """Bytes in GiB, without the unit."""
    return f"{count / 2**30:.1f}"


def gflops(speed: float) -> str:
    """Speed in GFLOP/s."""
    return f"{speed / 1e9:,.0f}"


def moved_table(ways: list[Way]) -> str:
    """Table of kernels and bytes of a pass and a decode; see ``bench.studies.moved``."""
    lines = [
        "| Counted | | Kernels | GB moved | Besides, for biases: kernels | GB |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for way in ways:
        for work, moved in way.work.items():
            passes, biases = moved.biases
            counts = f"{moved.kernels:,} | {moved.bytes / 1e9:.0f} | {passes} | {biases / 1e9:.0f}"
            lines.append(f"| {work} | {way.title} | {counts} |")
    return "\n".join(lines)
