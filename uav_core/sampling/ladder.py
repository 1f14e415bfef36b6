"""Stepping down when memory runs out: smaller settings, tried one after the other.

The cheapest steps come first: halves of a pass, then layers in stripes, which give the same result
to rounding; then fewer frames decoded together, then smaller and smaller tiles. The last two change
the result a little, so settings are plain data for a record of the run. A ladder never steps back
up, so that the rest of a clip is made like the part before.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

from ..callbacks import ignore
from ..devices import memory
from ..devices.memory import Sparing
from ..errors import InputError, UpscaleAVideoError
from ..files import human_bytes
from .segments import DECODE_GROUP
from .tiles import MULTIPLE, OVERLAP

log = logging.getLogger(__name__)

T = TypeVar("T")

TILES = (256, 192, 128, 64)
"""Sides of the tiles to step down through, in low-resolution pixels."""
FLOW_SIDES = (1024, 768, 512, 384, 256)
"""Longest sides at which to estimate flow, in low-resolution pixels."""

# Parts of the error messages of CUDA, its libraries, the CPU allocator (Linux, Windows), MPS and
# ComfyUI's dynamic memory. cuDNN also finds no engine where memory for its scratch space is short.
_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "status_alloc_failed",
    "allocation_failed",
    "unable to find an engine",
    "invalid buffer size",
    "vram grow failed",
)


SPARING: dict[int, str] = {
    Sparing.NONE: "",
    Sparing.HALVES: "halves of a pass and pairs of frames one by one",
    Sparing.STRIPES: "layers in stripes",
}
"""The words for each level in messages."""


class OutOfMemoryError(UpscaleAVideoError, MemoryError):
    """Memory ran out with the smallest settings as well; the message lists what was tried."""


@dataclass(frozen=True)
class Setting:
    """How much one pass takes at once; None sets no bound."""

    frames: int | None = None
    """Frames decoded together."""
    tile: int | None = None
    """Side of a tile, in low-resolution pixels."""
    overlap: int | None = None
    """Low-resolution pixels that neighbouring tiles share, where there are tiles."""
    longest_side: int | None = None
    """Longest side at which flow is estimated, in low-resolution pixels."""
    sparing: int | None = None
    """A level of ``devices.memory.Sparing``."""

    def size(self, h: int, w: int) -> tuple[int, int]:
        """Height and width of a picture (h, w) that one pass takes at once."""
        side = self.tile or max(h, w)
        return min(h, side), min(w, side)

    def to_json(self) -> dict[str, int]:
        """The bounds that are set, by name."""
        return {name: int(value) for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, data: dict[str, int]) -> Setting:
        """The reverse of ``to_json``. Raises InputError for unknown names or impossible values."""
        for name, value in data.items():
            most = max(Sparing) if name == "sparing" else value
            known = name in cls.__dataclass_fields__ and type(value) is int
            if not known or not 0 <= value <= most:
                raise InputError(
                    f"The setting {name} = {value!r} is not valid: expected whole numbers for "
                    f"{', '.join(cls.__dataclass_fields__)}. The record of the run may come from "
                    "another version. Start the run from the beginning."
                )
        return cls(**data)

    def __str__(self) -> str:
        parts = [*filter(None, [SPARING[self.sparing or 0]])]
        if self.frames is not None:
            parts.append(f"{self.frames} frame{'s' * (self.frames != 1)} at once")
        if self.tile is not None:
            parts.append(
                f"tiles of {self.tile}x{self.tile} px with an overlap of {self.overlap or 0}"
            )
        if self.longest_side is not None:
            parts.append(f"at most {self.longest_side} px a side")
        return ", ".join(parts) or "everything at once"


@dataclass(frozen=True)
class StepDown:
    """One step down a ladder, and why."""

    stage: str
    before: Setting
    after: Setting
    reason: str
    """The first line of the error; for a foreseen step, the bytes needed and available."""
    foreseen: bool = False
    """Whether ``before`` was skipped without a try, because it could not fit."""

    def __str__(self) -> str:
        if self.foreseen:
            return (
                f"Not enough memory for {self.stage} with {self.before} ({self.reason}): using "
                f"{self.after}."
            )
        return (
            f"Memory ran out while {self.stage} with {self.before} ({self.reason}): continued "
            f"with {self.after}."
        )


class Ladder:
    """The settings of one stage of a job, largest first, and the one in use."""

    def __init__(self, stage: str, settings: Sequence[Setting]) -> None:
        """``stage`` completes "memory ran out while ..." and tells the size of the work.

        Raises InputError if there is no setting.
        """
        if not settings:
            raise InputError(f"No setting for {stage}: expected at least one.")
        self.stage = stage
        self.settings = tuple(settings)
        self._level = 0

    @property
    def setting(self) -> Setting:
        """The setting in use."""
        return self.settings[self._level]

    def resume(self, setting: Setting) -> None:
        """Go on with the setting that an earlier part of the job ended with.

        Records of older jobs have no ``sparing``; they match a setting without it. Raises
        InputError if this ladder has no such setting.
        """
        found = [s for s in self.settings if s == setting]
        found += [s for s in self.settings if replace(s, sparing=None) == setting]
        # Some recorded an overlap that their tiles were too small for.
        tiles = [s for s in self.settings if s.tile]
        found += [s for s in tiles if replace(s, overlap=setting.overlap) == setting]
        if not found:
            raise InputError(
                f"The job used {setting} for {self.stage}: expected one of "
                f"{'; '.join(map(str, self.settings))}. Resume the job with its original settings."
            )
        self._level = self.settings.index(found[0])

    def foresee(self, needs: Callable[[Setting], int], room: int) -> StepDown | None:
        """Step down at once to the first setting that can fit, or to the last one.

        ``needs(setting)`` are the bytes it takes at least, ``room`` the bytes there are (0 if
        unknown). Returns None if the setting stays as it is.
        """
        before, least = self.setting, needs(self.setting)
        if not room or least <= room:
            return None
        while needs(self.setting) > room and self._level + 1 < len(self.settings):
            self._level += 1
        if self.setting == before:
            return None
        reason = f"{human_bytes(least)} needed, {human_bytes(room)} available"
        step = StepDown(self.stage, before, self.setting, reason, foreseen=True)
        log.warning("%s", step)
        return step

    def step_down(self, reason: str) -> StepDown:
        """Take the next smaller setting. Raises OutOfMemoryError at the end of the ladder."""
        if self._level + 1 == len(self.settings):
            tried = "; ".join(map(str, self.settings[: self._level + 1]))
            raise OutOfMemoryError(
                f"Memory ran out while {self.stage}, even with the smallest setting. Tried: "
                f"{tried}. The last error: {reason} Close other programs that use this memory, or "
                "use a smaller or shorter clip."
            )
        before = self.setting
        self._level += 1
        return StepDown(self.stage, before, self.setting, reason)


def decode_ladder(
    frames: int, h: int, w: int, group: int = DECODE_GROUP, overlap: int = OVERLAP
) -> Ladder:
    """For decoding low-resolution frames (h, w): whole, in stripes, in smaller groups, in tiles.

    ``group`` is the number of frames decoded together at first.
    """
    most, spared = max(1, min(group, frames)), Setting(sparing=Sparing.STRIPES)
    together = [replace(spared, frames=n) for n in range(most, 0, -1)]
    tiles = [replace(spared, frames=1, tile=n, overlap=_fitting(overlap, n)) for n in _tiles(h, w)]
    settings = [Setting(frames=most), *together, *tiles]
    return Ladder(f"decoding frames of {w}x{h}", settings)


def sample_ladder(frames: int, h: int, w: int, overlap: int = OVERLAP) -> Ladder:
    """For the U-Net on segments of ``frames`` frames (h, w): whole, halves, stripes, tiles."""
    spared = Setting(sparing=Sparing.STRIPES)
    tiles = [replace(spared, tile=n, overlap=_fitting(overlap, n)) for n in _tiles(h, w)]
    settings = [Setting(), Setting(sparing=Sparing.HALVES), spared, *tiles]
    return Ladder(f"sampling {frames} frames of {w}x{h}", settings)


def flow_ladder(h: int, w: int) -> Ladder:
    """For flow between frames (h, w): several pairs at once, one by one, then at smaller sizes."""
    spared = Setting(sparing=Sparing.HALVES)
    sides = [replace(spared, longest_side=n) for n in FLOW_SIDES if n < max(h, w)]
    return Ladder(f"estimating flow on frames of {w}x{h}", [Setting(), spared, *sides])


def _tiles(h: int, w: int) -> list[int]:
    """The sides in TILES that are smaller than the picture; larger ones would change nothing."""
    return [n for n in TILES if n < max(h, w)]


def _fitting(overlap: int, side: int) -> int:
    """``overlap``, or what tiles of ``side`` can have where they are too small for it."""
    return overlap if overlap <= side - MULTIPLE else side // 2


def from_tile(ladder: Ladder, side: int, overlap: int) -> Ladder:
    """``ladder`` with tiles of ``side`` in place of whole frames, and only smaller tiles below."""
    whole = [replace(s, tile=side, overlap=overlap) for s in ladder.settings if s.tile is None]
    smaller = [s for s in ladder.settings if s.tile is not None and s.tile < side]
    return Ladder(ladder.stage, [*whole, *smaller])


def is_out_of_memory(
    error: BaseException, also: Callable[[BaseException], bool] | None = None
) -> bool:
    """Whether an error says that memory, of a device or the computer, ran out.

    ``also`` is a host application's judge, which is asked about every error.
    """
    # Asked in any case: ComfyUI's judge also clears errors that CUDA still has to report.
    if (also is not None and also(error)) or isinstance(error, MemoryError):
        return True
    # torch.OutOfMemoryError is a RuntimeError too, and its message has one of the signs.
    text = str(error).lower() if isinstance(error, RuntimeError) else ""
    return any(sign in text for sign in _SIGNS)


def run_with_fallback(
    work: Callable[[Setting], T],
    ladder: Ladder,
    release: Callable[[], None] = ignore,
    on_step: Callable[[StepDown], None] = ignore,
    also: Callable[[BaseException], bool] | None = None,
) -> T:
    """``work(setting)`` with the ladder's setting, and with smaller ones while memory runs out.

    The ladder keeps the level reached, for the next call of the job. ``release()`` is called
    before each new try, to hand cached memory back (ComfyUI's ``soft_empty_cache``);
    ``on_step(step)`` after each step down, which is logged as well. ``also`` is
    that of ``is_out_of_memory``, for RuntimeErrors (ComfyUI's ``is_oom``).

    Raises OutOfMemoryError when the smallest setting does not fit either. All other errors, and
    cancelling, pass through.
    """
    while True:
        try:
            with memory.sparing(ladder.setting.sparing):
                return work(ladder.setting)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error, also):
                raise
            # Logged as text: a log handler that kept the error itself would keep its tensors.
            log.debug("%s", traceback.format_exc())
            reason = _first_line(error)
            # A stack frame and an error that refer to each other would keep the tensors too.
            traceback.clear_frames(error.__traceback__)
        # Here the error is gone, and with it the tensors of the failed try.
        release()
        step = ladder.step_down(reason)
        log.warning("%s", step)
        on_step(step)


def _first_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return text or type(error).__name__
