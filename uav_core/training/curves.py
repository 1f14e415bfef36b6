"""Loss curves as a picture."""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger(__name__)


def draw_curves(history: list[dict[str, float]], path: Path) -> None:
    """Draw every column of ``history`` except ``step`` over the steps, with a running mean.

    Needs matplotlib. Without it nothing is drawn, and a message is logged.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        log.info("no picture of the loss curves: matplotlib is missing (`pip install matplotlib`)")
        return
    names = [name for name in dict.fromkeys(k for row in history for k in row) if name != "step"]
    figure = Figure(figsize=(4.2 * len(names), 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        points = [(row["step"], row[name]) for row in history if name in row]
        steps, values = zip(*points, strict=True)
        smooth, mean = [], values[0]
        for value in values:
            mean = 0.9 * mean + 0.1 * value
            smooth.append(mean)
        axes.plot(steps, values, color="0.8", linewidth=0.8)
        axes.plot(steps, smooth, color="tab:blue")
        axes.set(title=name, xlabel="step", yscale="log" if min(values) > 0 else "linear")
        axes.grid(alpha=0.3)
    figure.savefig(str(path), dpi=110)
