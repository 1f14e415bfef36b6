"""The latent of a scene, denoised in a wave that runs through it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...callbacks import ignore
from ...devices.memory import to_device
from ...errors import InputError
from ..ddim import DDIM, VelocityDDIM
from ..segments import Segment, blend
from .frames import HeldFrames, separate
from .params import StreamParams
from .state import StreamState, collect, rebuild
from .sweep import Flow, Motions, Sweep
from .wave import Wave

Predict = Callable[[Tensor, int, range], Tensor]
Noise = Callable[[range], Tensor]


class LatentStream:
    """Denoises a scene in order, whatever its length; see the package for how.

    Without propagation the frames are bit for bit those of ``pipeline.sample``; with it they
    differ by at most what ``params.propagation_error`` tells. How a run is cut into calls of
    ``advance``, and whether it was restored from a state on the way, changes no bit.

    An exception from a callback leaves the stream intact: the same call may be made again and
    goes on with the pass that was interrupted.
    """

    def __init__(
        self,
        params: StreamParams,
        predict: Predict | None,
        noise: Noise,
        flow: Flow | None = None,
        *,
        ddim: DDIM | None = None,
        device: torch.device | str = "cpu",
        progress: Callable[[int, int], None] = ignore,
        check_cancelled: Callable[[], None] = ignore,
    ) -> None:
        """Nothing runs before ``advance``.

        Args:
            params: the scene and the run.
            predict: called with the latent (1, c, n, h, w) of one segment, the 0-based step and
                the frames in the scene; returns what ``ddim`` takes, guidance applied. Must give
                the same for the same arguments. None if every ``advance`` is given its own.
            noise: called with ranges of frames, in order and once each; returns standard normal
                (1, c, n, h, w), the same for a frame however the ranges are cut.
            flow: called with i, in order and once each; returns the flow from frame i to i + 1
                and back, each (1, 2, h, w) in pixels. Needed to propagate.
            ddim: how predictions become latents; for v by default.
            device: where frames wait for their next step, and where their arithmetic is done.
            progress: called with the passes done and all passes of the scene.
            check_cancelled: called before every pass; may raise.

        Raises:
            InputError: propagation steps without a flow.
        """
        if params.propagates and flow is None:
            raise InputError(
                "propagation_steps are given, but no flow: pass a flow function, or leave "
                "propagation_steps empty."
            )
        self.params, self.ddim = params, ddim or VelocityDDIM(params.steps)
        self.device = torch.device(device)
        self._predict, self._noise, self._flow = predict, noise, flow
        self._progress, self._check_cancelled = progress, check_cancelled
        self._wave = Wave(params, Motions(params, flow, self.device))

    @property
    def fetched(self) -> int:
        """The number of frames that ``advance`` has returned."""
        return self._wave.finished.first

    @property
    def window(self) -> range:
        """Frames that were begun and not yet fetched: the caller must keep their input."""
        return range(self.fetched, self._wave.steps[0].latents.stop)

    @property
    def next_pair(self) -> int:
        """The pair of frames whose flow is requested next, if any is."""
        return self._wave.motions.stop

    @property
    def held(self) -> int:
        """Latent frames held, without finished ones; ``params.most_held`` at most."""
        return self._wave.held

    @property
    def passes(self) -> tuple[int, int]:
        """Passes done, and all passes of the scene."""
        done = sum(step.segment for step in self._wave.steps)
        return done, self.params.steps * len(self.params.plan)

    @torch.no_grad()
    def advance(self, count: int, predict: Predict | None = None) -> Tensor | None:
        """The next ``count`` frames, or those that are left of the scene; None after its end.

        ``predict`` is used for this call instead of the stream's own: for a network that is loaded
        only for a while.

        Returns (1, c, n, h, w) as ``pipeline.sample`` does, before the division by the latent
        scale. Raises InputError for a count below 1 and for callbacks that return a wrong shape;
        errors of callbacks pass through.
        """
        if count < 1:
            raise InputError(f"{count} frames were requested: expected 1 or more.")
        stop = min(self.fetched + count, self.params.frames)
        if stop == self.fetched:
            return None
        predict, finished = predict or self._predict, self._wave.finished
        if predict is None:
            raise InputError(
                "The stream has no predict function: pass one to the stream or to advance."
            )
        while finished.stop < stop:
            self._work(predict)
        frames = finished.stack(finished.first, stop)
        finished.drop(stop)
        return frames

    def state(self) -> StreamState:
        """A copy of everything under way, on the CPU, without the frames that were fetched.

        It takes the bytes of ``held`` latent frames, of finished frames not yet fetched (fewer
        than a segment and a block together), and of 4 h w fp32 values for every pair of frames
        under way.
        """
        return collect(self._wave, self.ddim.name)

    @torch.no_grad()
    def restore(self, state: StreamState) -> None:
        """Go on from a state of this stream or of one that was made alike.

        Raises InputError if it belongs to another scene or run, DamagedStateError if its parts do
        not fit together; the stream is then unchanged.
        """
        motions = Motions(self.params, self._flow, self.device)
        self._wave = rebuild(state, self.params, self.ddim.name, motions)

    def _work(self, predict: Predict) -> None:
        """Run one block or one segment, at the last step that has one ready."""
        for i in reversed(range(self.params.steps)):
            sweep = self._wave.steps[i].sweep
            if sweep is not None and sweep.ready:
                self._check_cancelled()
                return self._run_block(i, sweep)
            if self._wave.segment_ready(i):
                self._check_cancelled()
                self._run_segment(i, predict)
                return self._progress(*self.passes)
        raise AssertionError("the scene is not finished, but no segment or block is ready")

    def _run_segment(self, i: int, predict: Predict) -> None:
        step, segment = self._wave.steps[i], self.params.plan[self._wave.steps[i].segment]
        if i == 0:
            self._bring_in(step.latents, segment.stop)
        latent = step.latents.stack(segment.start, segment.stop)
        part = predict(latent, i, range(segment.start, segment.stop))
        self._check_shape("prediction", part, latent.shape[2])

        # Everything is computed before anything changes, because memory may run out on the way.
        blended, shared = latent.new_empty(latent.shape), self._wave.shared(i)
        if step.pending is not None:
            blended[:, :, :shared] = step.pending
        blend(blended, shared, Segment(0, latent.shape[2], segment.weight), part.to(latent))
        following = step.segment + 1
        last = following == len(self.params.plan)
        own = latent.shape[2] if last else self.params.plan[following].start - segment.start
        rest = blended[:, :, own:].clone() if own < latent.shape[2] else None
        x0, eps = self.ddim.split(latent[:, :, :own], blended[:, :, :own], i)
        if step.sweep is None:
            queues = ((self._wave.after(i), self._land(i, x0, eps)),)
        else:
            queues = ((step.sweep.x0, separate(x0)), (step.sweep.eps, separate(eps)))

        for queue, frames in queues:
            queue.append(frames)
        step.pending, step.segment = rest, following
        step.latents.drop(segment.start + own)

    def _run_block(self, i: int, sweep: Sweep) -> None:
        block = sweep.block
        done = sweep.run(self._wave.motions)
        eps = sweep.eps.stack(block.start, block.stop)
        latents = self._land(i, torch.stack(done, dim=2), eps)

        self._wave.after(i).append(latents)
        sweep.finish(done)
        self._wave.motions.drop(self._wave.first_pair())

    def _land(self, i: int, x0: Tensor, eps: Tensor) -> list[Tensor]:
        latents = self.ddim.join(x0, eps, i)
        return separate(self.ddim.end(latents) if i + 1 == self.params.steps else latents)

    def _bring_in(self, latents: HeldFrames, stop: int) -> None:
        """Add the noise of new frames, up to ``stop``."""
        frames = range(latents.stop, stop)
        if frames:
            noise = self._noise(frames)
            self._check_shape("noise", noise, len(frames))
            noise = to_device(noise, self.device)
            latents.append(separate(self.ddim.start(noise)))

    def _check_shape(self, name: str, got: Tensor, frames: int) -> None:
        expected = (1, self.params.channels, frames, self.params.h, self.params.w)
        if tuple(got.shape) != expected:
            raise InputError(f"The {name} is {tuple(got.shape)}: expected {expected}.")
