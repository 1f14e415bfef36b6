"""Clean and degraded clips from worker processes.

A separate process holds the media and forks the workers, so that the training process is never
forked and may use CUDA. It writes the clips in order to a pipe, from which a thread reads ahead.
Clip ``n`` depends only on the seed and ``n``, so a process that dies is restarted at the first
missing clip.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ...errors import UpscaleAVideoError
from ..data.clips import ClipSource
from ..data.degrade import degrade, random_degradation
from ..data.pack import to_bytes
from .processes import module_process

log = logging.getLogger(__name__)

RESTARTS = 3
"""How often the process may end in a row without a clip."""
PATIENCE = 120
"""Seconds after which a clip that a worker does not deliver is taken for lost."""
SHARED = Path("/dev/shm")
"""Where clips are on the way from a worker."""
RECOLOURED = 0.4
"""Share of clips with changed gain and gamma, so that few media give many colours."""

Clip = tuple[np.ndarray, np.ndarray]
"""Clean and degraded, each (t, h, w, 3) uint8."""


class ClipsError(UpscaleAVideoError):
    """The workers give no clips."""


def make_clip(source: Any, seed: int, frames: int, size: int, n: int) -> Clip:
    """Clip ``n`` of ``size`` pixels a side. Raises ClipsError after 20 tries."""
    for attempt in range(20):
        rng = np.random.default_rng([seed, n, attempt])
        try:
            clip = source.sample(rng, frames, size, size)
            if rng.random() < RECOLOURED:
                clip = _recoloured(clip, rng)
            return to_bytes(clip), to_bytes(degrade(clip, rng, random_degradation(rng)))
        except Exception:  # a codec error on one clip must not end a run
            log.exception("clip %d, attempt %d", n, attempt)
    raise ClipsError(f"Clip {n} could not be made in 20 attempts. See the log.")


def _recoloured(clip: Any, rng: np.random.Generator) -> Any:
    """Random gain and gamma on every channel of (3, t, h, w) in [-1, 1]."""
    gamma = np.exp(rng.normal(0, 0.2) + rng.normal(0, 0.05, (3, 1, 1, 1))).astype(np.float32)
    gain = np.exp(rng.normal(0, 0.1) + rng.normal(0, 0.05, (3, 1, 1, 1))).astype(np.float32)
    light = clip.new_tensor(gain) * clip.add(1).div(2).clamp(0, 1) ** clip.new_tensor(gamma)
    return light.clamp(0, 1).mul(2).sub(1)


# ---------------------------------------------------------------- the process of the media


class Numbered(Dataset[Clip]):
    """Clips by number; each is made when it is asked for."""

    def __init__(self, make: Callable[[int], Clip]) -> None:
        self.make = make

    def __getitem__(self, n: int) -> Clip:
        return self.make(n)


def clip_bytes(frames: int, size: int) -> int:
    """Bytes of a clip, clean and degraded."""
    return sum(frames * side * side * 3 for side in (size, size // 4))


def with_room(workers: int, clip: int) -> int:
    """So many workers that three clips of each find room in shared memory."""
    if not SHARED.exists():
        return workers
    most = max(1, shutil.disk_usage(SHARED).free // (3 * clip))
    if most < workers:
        log.warning("%s has little room: %d instead of %d workers.", SHARED, most, workers)
    return min(workers, most)


def main() -> None:
    """Write clips to standard output; arguments: DATA SEED FRAMES SIZE WORKERS FIRST."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    seed, frames, size, workers, first = map(int, sys.argv[2:])
    # Whatever else is printed must not get between the clips.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    workers = with_room(workers, clip_bytes(frames, size))
    forked = workers > 1 and hasattr(os, "fork")

    def begin(worker: int) -> None:
        os.nice(3)
        out.close()  # else the pipe would outlive this process

    clips = DataLoader(
        Numbered(partial(make_clip, ClipSource(sys.argv[1]), seed, frames, size)),
        batch_size=None,
        sampler=itertools.count(first),
        num_workers=workers if forked else 0,
        multiprocessing_context="fork" if forked else None,
        worker_init_fn=begin,
        timeout=PATIENCE if forked else 0,
    )
    with suppress(BrokenPipeError):  # the training process has ended
        for clip in clips:
            for part in clip:
                out.write(part.numpy().tobytes())
            out.flush()


# ---------------------------------------------------------------- the training process


class Clips:
    """Batches of clips in order, from a process that it starts and keeps alive."""

    def __init__(
        self, data: Path, places: int, frames: int, size: int, workers: int, seed: int, first: int
    ) -> None:
        """At most ``places`` clips are held here; ``first`` is the number of the first one."""
        self.taken = first
        """Number of the first clip that was not taken yet."""
        self.given = [str(x) for x in (data, seed, frames, size, workers)]
        self.shapes = [(frames, side, side, 3) for side in (size, size // 4)]
        self.ready: Queue[Clip] = Queue(places)
        self.ended = self.closed = False
        self.process = self._started(first)
        threading.Thread(target=self._read, daemon=True).start()

    def _started(self, first: int) -> subprocess.Popen[Any]:
        # It logs to standard error, as this process does.
        return module_process(__spec__.name, [*self.given, str(first)], stdout=subprocess.PIPE)

    def _read(self) -> None:
        """Read ahead until the process has ended too often."""
        try:
            for n in itertools.count(self.taken):
                failures = 0
                while (clip := self._received()) is None:
                    code = self.process.wait()
                    if self.closed or failures == RESTARTS:
                        return
                    log.warning("the process that makes clips ended with exit code %d", code)
                    failures += 1
                    self.process = self._started(n)
                    if self.closed:  # meanwhile
                        self.process.kill()
                self.ready.put(clip)
        finally:
            self.ended = True

    def _received(self) -> Clip | None:
        """The next clip from the process; None if it has ended."""
        pipe: Any = self.process.stdout
        parts = [pipe.read(math.prod(shape)) for shape in self.shapes]
        if len(parts[1]) < math.prod(self.shapes[1]):
            return None
        clean, low = (
            np.frombuffer(part, np.uint8).reshape(shape)
            for part, shape in zip(parts, self.shapes, strict=True)
        )
        return clean, low

    def take(self, count: int, wait: float | None = None) -> Clip | None:
        """The next clips, clean and degraded, (n, t, h, w, 3) uint8; None if they are not ready.

        With ``wait`` it waits so many seconds for them, then raises ClipsError.
        """
        until = time.monotonic() + (wait or 0)
        while self.ready.qsize() < count:
            if self.ended:
                raise ClipsError("The process that makes clips ended too often. See the log.")
            if wait is None:
                return None
            if time.monotonic() > until:
                raise ClipsError(
                    f"{count} clips were not ready after {wait:.0f} seconds. See the log."
                )
            time.sleep(0.01)
        self.taken += count
        clean, low = zip(*(self.ready.get() for _ in range(count)), strict=True)
        return np.stack(clean), np.stack(low)

    def close(self) -> None:
        """Stop the process."""
        self.closed = True
        self.process.kill()
        self.process.wait()


if __name__ == "__main__":
    main()
