"""Scenes to denoise whole and as a stream, with a small network in place of the U-Net."""

from types import SimpleNamespace
from typing import Any

import tiny
import torch
from generated import det

from uav_core.sampling import pipeline, schedule
from uav_core.sampling.propagation import PropagationParams
from uav_core.sampling.stream import LatentStream, StreamParams

H, W = 5, 7  # an odd number of values, to test the remainder of vector instructions
LEVEL = 120
# Random flows that are trusted in some places and not in others.
PATCHY = PropagationParams(absolute_threshold=2.0)


class SmallUNet(torch.nn.Module):
    """A fast network with the U-Net's arguments, which also mixes frames and takes two texts."""

    params = SimpleNamespace(out_channels=4, context_dim=48, trailing=False)

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv3d(7, 4, (5, 3, 3), padding=(2, 1, 1))
        for name, weight in self.named_parameters():
            weight.data = det(f"small/{name}", weight.shape) * 0.1

    def forward(self, latent, timestep, low_res, context, level):
        text = context.mean((1, 2)).view(-1, 1, 1, 1, 1)
        x = self.conv(torch.cat((latent, low_res), 1)) + text * timestep.view(-1, 1, 1, 1, 1)
        # The mean depends on the segment's frames: a pass must see exactly these.
        return torch.sin(x) + 0.1 * x.mean(dim=2, keepdim=True)


SMALL: Any = SmallUNet().requires_grad_(False)


def flows_of(t, size):
    forward, backward = (det(f"stream/flow{i}", (1, 2, t - 1, *size)) * 0.7 for i in range(2))
    return forward, backward


class Case:
    """One scene, for ``pipeline.sample`` and for a stream."""

    def __init__(self, params, unet=SMALL, flows=None):
        self.params, self.unet = params, unet
        t, size = params.frames, (params.h, params.w)
        self.frames = det("stream/frames", (1, 3, t, *size)).clamp(-1, 1)
        self.noise = det("stream/noise", (1, 4, t, *size))
        self.low_res_noise = det("stream/low_res_noise", (1, 3, t, *size))
        self.flows = flows if flows is not None or not params.propagates else flows_of(t, size)
        self.pairs = []
        low_res = schedule.noise_low_res(self.frames, self.low_res_noise, LEVEL)
        self.low_res = torch.cat((low_res, low_res))
        self.grid = schedule.timesteps(params.steps).tolist()

    def at_once(self):
        p = self.params
        return pipeline.sample(
            self.unet,
            self.frames,
            tiny.context(),
            steps=p.steps,
            noise_level=LEVEL,
            noise=self.noise,
            low_res_noise=self.low_res_noise,
            segment_length=p.segment_length,
            overlap=p.overlap,
            flows=self.flows,
            propagation_steps=p.propagation_steps if p.propagates else (),
            propagation=p.propagation,
        )

    def predict(self, latent, step, frames):
        pair = latent.expand(2, -1, -1, -1, -1)
        low_res = self.low_res[:, :, frames.start : frames.stop]
        t, level = torch.full((2,), self.grid[step]), torch.full((2,), LEVEL)
        uncond, cond = self.unet(pair, t, low_res, tiny.context(), level).chunk(2)
        return uncond + 6.0 * (cond - uncond)

    def flow(self, pair):
        assert self.flows is not None
        self.pairs.append(pair)
        forward, backward = self.flows
        return forward[:, :, pair], backward[:, :, pair]

    def stream(self, **options):
        flow = self.flow if self.flows is not None else None
        return LatentStream(
            self.params,
            options.pop("predict", self.predict),
            lambda frames: self.noise[:, :, frames.start : frames.stop],
            flow,
            **options,
        )


def rest_of(stream, count=10_000) -> torch.Tensor:
    """The remaining frames of a stream, fetched ``count`` at a time."""
    parts = [torch.empty(1, 4, 0, stream.params.h, stream.params.w)]
    while (part := stream.advance(count)) is not None:
        parts.append(part)
    return torch.cat(parts, dim=2)


def propagated(frames=45, **options):
    """A scene with blocks of propagation, not all of which reach its end."""
    return Case(
        StreamParams(
            frames,
            H,
            W,
            steps=3,
            propagation_steps=(0, 2),
            propagation=PATCHY,
            tolerance=1e-3,
            **options,
        )
    )
