"""Clean and degraded clips from worker processes, through a shared file.

A separate process holds the media and forks the workers, so that the training process is never
forked and may use CUDA. Clip ``n`` depends only on the seed and ``n``, and is stored in place ``n``
modulo the number of places; the head of the file says which clip each place holds. There are no
locks, so a process that dies holds none. It is restarted at the first missing clip.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UpscaleAVideoError
from .processes import is_orphan, module_process

log = logging.getLogger(__name__)

RESTARTS = 3
RECOLOURED = 0.4
"""Share of clips with changed gain and gamma, so that few media give many colours."""


class ClipsError(UpscaleAVideoError):
    """The workers give no clips."""


@dataclass(frozen=True)
class RingParams:
    """Source and sizes of the clips, and the path of the shared file."""

    data: str
    path: str
    places: int
    frames: int
    size: int
    workers: int
    seed: int


class Ring:
    """The shared file: the number of taken clips, the clip in every place, and the clips."""

    def __init__(self, p: RingParams) -> None:
        def part(shape: tuple[int, ...], dtype: Any, offset: int) -> np.memmap:
            return np.memmap(p.path, dtype, "r+", offset, shape)

        n, s, low = p.places, p.size, p.size // 4
        self.params = p
        self.head = part((1 + n,), np.int64, 0)
        offset = 8 * (1 + n)
        self.clean = part((n, p.frames, s, s, 3), np.uint8, offset)
        self.low = part((n, p.frames, low, low, 3), np.uint8, offset + self.clean.nbytes)

    @staticmethod
    def size_of(p: RingParams) -> int:
        """Size of the file in bytes."""
        clean = p.frames * p.size * p.size * 3
        return 8 * (1 + p.places) + p.places * (clean + clean // 16)

    @property
    def taken(self) -> int:
        """Number of the first clip that was not taken yet."""
        return int(self.head[0])

    def is_there(self, n: int) -> bool:
        """Whether clip ``n`` is in its place."""
        return self.head[1 + n % self.params.places] == n + 1

    def next_of(self, worker: int) -> int:
        """The first missing clip of a worker."""
        n = self.taken + (worker - self.taken) % self.params.workers
        while n < self.taken + self.params.places and self.is_there(n):
            n += self.params.workers
        return n

    def put(self, n: int, clean: np.ndarray, low: np.ndarray) -> None:
        """Store clip ``n`` in its place."""
        place = n % self.params.places
        self.clean[place], self.low[place] = clean, low
        self.head[1 + place] = n + 1


# ---------------------------------------------------------------- the processes


def make_clip(source: Any, p: RingParams, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Clip ``n``, clean and degraded, each (t, h, w, 3) uint8. Raises ClipsError after 20 tries."""
    from ..data.degrade import degrade, random_degradation

    for attempt in range(20):
        rng = np.random.default_rng([p.seed, n, attempt])
        try:
            clip = source.sample(rng, p.frames, p.size, p.size)
            if rng.random() < RECOLOURED:
                clip = _recoloured(clip, rng)
            low = degrade(clip, rng, random_degradation(rng))
            break
        except Exception:  # a codec error on one clip must not end a run
            log.exception("clip %d, attempt %d", n, attempt)
    else:
        raise ClipsError(f"Clip {n} could not be made in 20 attempts. See the log.")
    clean, low = (
        x.add(1).mul(127.5).round().byte().permute(1, 2, 3, 0).numpy() for x in (clip, low)
    )
    return clean, low


def _recoloured(clip: Any, rng: np.random.Generator) -> Any:
    """Random gain and gamma on every channel of (3, t, h, w) in [-1, 1]."""
    gamma = np.exp(rng.normal(0, 0.2) + rng.normal(0, 0.05, (3, 1, 1, 1))).astype(np.float32)
    gain = np.exp(rng.normal(0, 0.1) + rng.normal(0, 0.05, (3, 1, 1, 1))).astype(np.float32)
    light = clip.new_tensor(gain) * clip.add(1).div(2).clamp(0, 1) ** clip.new_tensor(gamma)
    return light.clamp(0, 1).mul(2).sub(1)


def _work(ring: Ring, source: Any, worker: int, parent: int) -> None:
    """Make the clips of one worker, at most as far ahead as there are places."""
    n = ring.next_of(worker)
    while True:
        while n >= ring.taken + ring.params.places:
            if is_orphan(parent):
                return
            time.sleep(0.005)
        ring.put(n, *make_clip(source, ring.params, n))
        n += ring.params.workers
        if is_orphan(parent):
            return


def serve(p: RingParams, parent: int) -> None:
    """Hold the media and keep the workers alive while the process ``parent`` lives."""
    import torch

    from ..data.clips import ClipSource

    torch.set_num_threads(1)
    ring = Ring(p)
    source = ClipSource(p.data)
    if not hasattr(os, "fork") or p.workers == 1:
        _work(ring, source, 0, parent)
    else:
        _keep_workers(ring, source, parent)
    # A killed parent could not remove the file.
    Path(p.path).unlink(missing_ok=True)


def _keep_workers(ring: Ring, source: Any, parent: int) -> None:
    p, me = ring.params, os.getpid()
    children: dict[int, int] = {}
    while not is_orphan(parent):
        for worker in range(p.workers):
            if worker in children:
                if not os.waitpid(children[worker], os.WNOHANG)[0]:
                    continue
                log.warning("worker %d ended and is restarted", worker)
            child = os.fork()
            if child == 0:
                try:
                    os.nice(3)
                    _work(ring, source, worker, me)
                except BaseException:
                    log.exception("worker %d", worker)
                finally:
                    os._exit(0)
            children[worker] = child
        time.sleep(0.2)
    for child in children.values():
        os.kill(child, signal.SIGKILL)


# ---------------------------------------------------------------- the training process


class Clips:
    """Batches of clips in order, from worker processes that it starts and keeps alive."""

    def __init__(
        self, data: Path, places: int, frames: int, size: int, workers: int, seed: int, first: int
    ) -> None:
        p = RingParams(str(data.resolve()), "", places, frames, size, workers, seed)
        handle, path = tempfile.mkstemp(".clips", "uav_", _room(Ring.size_of(p)))
        os.truncate(handle, Ring.size_of(p))
        os.close(handle)
        self.params = RingParams(**{**asdict(p), "path": path})
        self.ring = Ring(self.params)
        self.ring.head[0] = first
        self.starts = 0
        self._start()

    def _start(self) -> None:
        self.starts += 1
        given = json.dumps(asdict(self.params))
        # It logs to standard error, as this process does.
        self.process = module_process(__spec__.name, [given, str(os.getpid())])

    def has(self, count: int) -> bool:
        """Whether the next ``count`` clips are ready."""
        return all(self.ring.is_there(self.ring.taken + i) for i in range(count))

    def take(self, count: int, wait: float | None = None) -> tuple[np.ndarray, np.ndarray] | None:
        """The next clips, clean and degraded, (n, t, h, w, 3) uint8; None if they are not ready.

        With ``wait`` it waits so many seconds for them, then raises ClipsError.
        """
        until = time.monotonic() + (wait or 0)
        while not self.has(count):
            self._keep_alive()
            if wait is None:
                return None
            if time.monotonic() > until:
                raise ClipsError(
                    f"{count} clips were not ready after {wait:.0f} seconds. See the log."
                )
            time.sleep(0.01)
        first = self.ring.taken
        at = np.arange(first, first + count) % self.params.places
        clips = self.ring.clean[at], self.ring.low[at]
        self.ring.head[0] = first + count
        return clips

    def _keep_alive(self) -> None:
        if self.process.poll() is not None:
            if self.starts > RESTARTS:
                raise ClipsError("The process that makes clips ended too often. See the log.")
            log.warning(
                "the process that makes clips ended with exit code %d", self.process.returncode
            )
            self._start()

    def close(self) -> None:
        """Stop the processes and delete the file."""
        self.process.kill()
        self.process.wait()
        Path(self.params.path).unlink(missing_ok=True)


def _room(needed: int) -> str:
    """A folder for a file of ``needed`` bytes: /dev/shm if it fits, else the temporary folder."""
    memory = Path("/dev/shm")
    fits = memory.is_dir() and os.access(memory, os.W_OK)
    if fits and shutil.disk_usage(memory).free > 1.2 * needed:
        return str(memory)
    return tempfile.gettempdir()


def main() -> int:
    """Run ``serve`` with the arguments PARAMS (as JSON) and PARENT (process id)."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    serve(RingParams(**json.loads(sys.argv[1])), int(sys.argv[2]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
