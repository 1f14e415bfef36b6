"""One scene under way: its stream, its input frames, and its decoded frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..devices.memory import Sparing, spares, to_device, to_host
from ..flow.estimate import pairs_at_once
from ..models.half import overflowed
from ..sampling import schedule
from ..sampling.ladder import Ladder, Setting, run_with_fallback
from ..sampling.noise import LATENT, LOW_RES, frame_noise
from ..sampling.stream import LatentStream, StreamState
from ..sampling.stream.frames import HeldFrames, separate
from ..values import check_finite
from .course import DECODING, FLOW, SAMPLING
from .engine import Engine, Predict
from .params import LongVideoParams
from .source import Source

T = TypeVar("T")

Arriving = list[Callable[[], Tensor]]
"""Functions that wait until frames are copied to the host."""
_Group = tuple[Tensor, Tensor, Arriving]
"""A group that is decoded: its latents, its input frames, and its frames on their way."""

# Latents wait on the device if they take at most this fraction (1 / HELD_SHARE) of its memory.
HELD_SHARE = 8
AHEAD_ON = ("cuda",)
"""Kinds of device that decode a group while the frames of the one before it are used."""
AHEAD_UP_TO = 400 * 2**20
"""Bytes of such a group: two of them are in page-locked memory at a time, which is scarce."""
BATCHES_AHEAD = 4
"""Batches of pairs whose flow is estimated in one go."""
RESIZES_ON = ("cpu", "cuda")
"""Kinds of device that certainly have torch's antialiased bicubic interpolation."""


class Scene:
    """Gives the upscaled frames of a scene, in order.

    Numbers count from the scene's first frame, also for noise: a scene gives the same frames in
    any video.
    """

    def __init__(
        self,
        source: Source,
        frames: range,
        engine: Engine,
        params: LongVideoParams,
        ladders: Mapping[str, Ladder],
        state: StreamState | None,
        *,
        on_step: Callable[[Any], None],
        timed: Callable[[str, int], AbstractContextManager[None]],
    ) -> None:
        """``frames`` of ``source``, begun or from a state; ``timed`` is as in ``Forecast``.

        ``ladders`` are those of the stages "sample", "decode" and "flow". Raises DamagedStateError
        and InputError as ``LatentStream.restore``.
        """
        self.engine, self.params, self.ladders = engine, params, ladders
        self.size, self.count = source.size, len(frames)
        self._resized = source.resizing.after
        self._timed, self._on_step = timed, on_step
        self._check_cancelled = source.check_cancelled
        self._flows: dict[int, tuple[Tensor, Tensor]] = {}
        self._upscaled: Iterator[Tensor] = iter(())
        """The sampled frames that were not taken yet."""
        self._ahead = False
        """Whether groups are decoded ahead."""
        self.next = 0
        """The frame that ``take`` returns next."""
        stream = params.stream(self.count, *self.size)
        self.stream = LatentStream(
            stream,
            None,
            lambda f: frame_noise(params.seed, LATENT, f, stream.channels, *self.size),
            self._flow if stream.propagates else None,
            ddim=engine.ddim,
            device=place(engine, stream.state_bytes),
            check_cancelled=source.check_cancelled,
        )
        if state is not None:
            self.stream.restore(state)
            self.next = self.stream.fetched
        self._noised = HeldFrames(self.next)
        self._pairs = pairs_at_once(engine.device, *self.size, engine.room())
        """Pairs of frames whose flow is estimated together: by the size and the machine alone."""
        pair = self.stream.next_pair
        self._flows_from = pair - pair % self._pairs if stream.propagates else self.count
        """The first frame of the next batch of pairs. Batches have fixed places."""
        self.window = source.window(frames, min(self.next, self._flows_from))

    def close(self) -> None:
        """Close the file, and let go of frames that were not taken."""
        self.window.close()
        self._upscaled = iter(())

    def state(self) -> StreamState | None:
        """The sampler's state if no frame waits to be taken; otherwise None."""
        return None if self._waiting else self.stream.state()

    @property
    def _waiting(self) -> bool:
        """Whether there are sampled frames that were not taken yet."""
        return self.next < self.stream.fetched

    def take(self, stop: int) -> Tensor:
        """The next frame as (3, h, w) in [-1, 1], resized for the encoder.

        Frames up to ``stop`` will be taken soon: they are sampled together, and decoded group by
        group as they are taken.
        """
        if not self._waiting:
            self._upscaled = self._decoded(self._sample(stop))
        frame = next(self._upscaled)
        self.next += 1
        return frame

    def skip(self, stop: int) -> None:
        """Skip frames up to ``stop``, as far as whole groups need not be decoded."""
        group = self.params.frames_per_group
        target = stop if stop == self.count else stop // group * group
        # About a part at a time: the memory must not grow with the frames that are skipped.
        most = max(self.params.part_length // group, 1) * group
        while target > self.next and not self._waiting:
            count = min(target - self.next, most)
            self._advance(count)
            self.next += count
            self._drop(self.next)

    def _sample(self, stop: int) -> Tensor:
        """The latents of whole groups up to ``stop``, and of at least one group."""
        group, start = self.params.frames_per_group, self.stream.fetched
        whole = stop if stop == self.count else stop // group * group
        if whole <= start:
            whole = min(start + group, self.count)
        return self._advance(whole - start)

    def _decoded(self, latents: Tensor) -> Iterator[Tensor]:
        """The frames of ``latents`` (1, 4, n, h, w), decoded group by group as they are taken."""
        size, first = self.params.frames_per_group, self.next
        where = "upscaled scene", "The U-Net or the VAE"
        groups, coming = deque(latents.split(size, dim=2)), deque[_Group]()
        del latents  # else it stays while the next ones are sampled
        while groups or coming:
            with self._timed(DECODING, min(size, self.stream.fetched - self.next)):
                while groups and len(coming) <= self._ahead:
                    self._check_cancelled()
                    last = first + groups[0].shape[2]
                    coming.append(self._begun(groups.popleft(), self.window.stack(first, last)))
                    self._drop(last)
                    first = last
                frames = self._arrived(*coming.popleft())
            for i in range(len(frames)):
                check_finite(frames[i][None], *where, dim=0, first=self.next + i)
            while frames:
                yield frames.popleft()  # none stays here while the next group is made

    def _begun(self, latents: Tensor, frames: Tensor) -> _Group:
        return latents, frames, self._decode(latents, frames)

    def _arrived(self, latents: Tensor, frames: Tensor, arriving: Arriving) -> deque[Tensor]:
        """The frames of a group, decoded again if they overflowed."""
        arrived = deque(wait() for wait in arriving)
        # Only here, where they are waited for anyway, so that the device decodes ahead.
        wider = self.engine.in_wider()
        if wider is not None and any(map(overflowed, arrived)) and not overflowed(latents):
            with wider:
                arrived = deque(wait() for wait in self._decode(latents, frames))
        return arrived

    def _decode(self, latents: Tensor, frames: Tensor) -> Arriving:
        """Functions that wait until the decoded frames of one group are copied here."""

        def work(setting: Setting) -> Arriving:
            n, coming = min(setting.frames or latents.shape[2], latents.shape[2]), []
            for i in range(0, latents.shape[2], n):
                s = slice(i, i + n)
                pixels = self.engine.decode(latents[:, :, s], frames[:, :, s], setting)
                if pixels.device.type not in RESIZES_ON:
                    pixels = pixels.cpu()
                pixels = self._resized(pixels)
                size = pixels.nbytes // pixels.shape[2] * latents.shape[2]
                self._ahead = pixels.device.type in AHEAD_ON and size <= AHEAD_UP_TO
                # At once, so that none stays on the device.
                coming += [to_host(frame, self._ahead) for frame in pixels[0].unbind(1)]
            return coming

        return self._stepping_down(work, self.ladders["decode"])

    def _advance(self, count: int) -> Tensor:
        def work(predict: Predict) -> Tensor | int:
            try:
                latents = self.stream.advance(count, partial(self._predict, predict))
            except _Flow as wanted:
                # Returned, not raised, as ComfyUI only cleans up after sampling that ends normally.
                return wanted.pair
            assert latents is not None  # never called at the end of the scene
            return latents

        segment = min(self.count, self.params.segment_length), *self.size
        while True:
            result = self.engine.sampling(segment, work)
            if isinstance(result, Tensor):
                return result
            self._estimate(result)

    def _predict(self, predict: Predict, latent: Tensor, step: int, frames: range) -> Tensor:
        low_res = self._noised_frames(frames)
        with self._timed(SAMPLING, len(frames)):
            return self._stepping_down(
                lambda setting: predict(latent, step, low_res, setting),
                self.ladders["sample"],
            )

    def _noised_frames(self, frames: range) -> Tensor:
        """The noised frames for the U-Net; noised once, for all steps and segments."""
        held = self._noised
        new = range(held.stop, frames.stop)
        if new:
            clean = self.window.stack(new.start, new.stop)
            noise = frame_noise(self.params.seed, LOW_RES, new, 3, *self.size)
            noised = schedule.noise_low_res(clean, noise, self.params.noise_level)
            held.append(separate(to_device(noised, self.stream.device)))
        return held.stack(frames.start, frames.stop)

    def _drop(self, stop: int) -> None:
        """Drop the input frames before ``stop``, except those whose flow is still needed."""
        self.window.drop(min(stop, self._flows_from))
        self._noised.drop(stop)

    def _flow(self, pair: int) -> tuple[Tensor, Tensor]:
        if pair not in self._flows:
            raise _Flow(pair)
        return self._flows.pop(pair)

    def _estimate(self, first: int) -> None:
        """Estimate the flows of pairs from ``first`` on. Not during sampling: networks change."""
        # All that have been read and, where they come in batches, some more, so that the networks
        # rarely change places; whole batches, so that a run that went on from a state has the
        # same ones.
        more = max(1, read_ahead(self._pairs))
        last = min(max(first + more, self.window.stop - 1), self.count - 1)
        for start in range(self._flows_from, last, self._pairs):
            self._check_cancelled()
            pairs = range(start, min(start + self._pairs, self.count - 1))
            frames = self.window.stack(start, pairs.stop + 1)[0].transpose(0, 1)
            with self._timed(FLOW, len(pairs)):
                ahead, back = self._flows_between(frames[:-1], frames[1:])
            # Each in memory of its own, which is free when it was used.
            device = self.stream.device
            ways = ([x.to(device, copy=True) for x in way.split(1)] for way in (ahead, back))
            both = zip(*ways, strict=True)
            self._flows |= {i: way for i, way in zip(pairs, both, strict=True) if i >= first}
            self._flows_from = pairs.stop

    def _flows_between(self, earlier: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
        def work(setting: Setting) -> tuple[Tensor, Tensor]:
            n = 1 if spares(Sparing.HALVES) else len(earlier)
            batches = zip(earlier.split(n), later.split(n), strict=True)
            ahead, back = zip(*(self.engine.flow(*ends, setting) for ends in batches), strict=True)
            return torch.cat(ahead), torch.cat(back)

        return self._stepping_down(work, self.ladders["flow"])

    def _stepping_down(self, work: Callable[[Setting], T], ladder: Ladder) -> T:
        engine = self.engine
        return run_with_fallback(work, ladder, engine.release, self._on_step, engine.ran_out)


def read_ahead(pairs: int) -> int:
    """Frames read ahead for their flow, where that of ``pairs`` is estimated together."""
    return BATCHES_AHEAD * pairs if pairs > 1 else 0


def place(engine: Engine, held_bytes: int) -> torch.device:
    """The device where ``held_bytes`` of latents wait between passes, and are computed with.

    It is that of the networks if there is room, so that no pass waits for copies. It depends only
    on the size and the machine, as the device decides the last bits of the result.
    """
    room = engine.room()
    return torch.device("cpu") if room and held_bytes * HELD_SHARE > room else engine.device


class _Flow(Exception):
    """The stream needs a flow, in the middle of sampling, that is not estimated yet."""

    def __init__(self, pair: int) -> None:
        self.pair = pair
