from typing import Any

import pytest
import tiny
import torch
from made_streams import PATCHY, Case, H, W, propagated, rest_of

from uav_core import InputError
from uav_core.sampling import schedule
from uav_core.sampling.propagation import PropagationParams
from uav_core.sampling.stream import DenoisedDDIM, LatentStream, StreamParams
from uav_core.sampling.stream.params import BLOCK, LONGEST_LOOK_AHEAD, look_ahead


@pytest.mark.parametrize("frames", range(1, 41))
def test_bits_of_sampling_at_once(frames):
    case = Case(StreamParams(frames, H, W, steps=3))
    assert torch.equal(rest_of(case.stream()), case.at_once())


@pytest.mark.parametrize(("length", "overlap"), [(1, 0), (2, 1), (4, 3), (5, 0), (7, 3), (16, 4)])
@pytest.mark.parametrize("frames", [5, 16, 23])
@pytest.mark.parametrize("steps", [1, 5])
def test_bits_with_other_segments_and_steps(length, overlap, frames, steps):
    params = StreamParams(frames, H, W, steps=steps, segment_length=length, overlap=overlap)
    case = Case(params)
    assert torch.equal(rest_of(case.stream()), case.at_once())


def test_bits_with_the_temporal_unet():
    case = Case(StreamParams(9, 8, 10, steps=2), tiny.quick_unet())
    assert torch.equal(rest_of(case.stream()), case.at_once())


@pytest.mark.parametrize("frames", [1, 2, 8, 9, 27, 28])
@pytest.mark.parametrize("steps", [(2,), (0, 1, 2)])
def test_propagation_of_a_short_scene_is_exact(frames, steps):
    params = StreamParams(frames, H, W, steps=3, propagation_steps=steps, propagation=PATCHY)
    assert params.propagation_error == 0
    case = Case(params)
    torch.testing.assert_close(rest_of(case.stream()), case.at_once(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("strength", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("tolerance", [1e-6, 0.1])
def test_propagation_of_a_long_scene_is_within_its_bound(strength, tolerance):
    # No motion, trusted everywhere: nothing stops an error from being passed on.
    still = torch.zeros(1, 2, 89, H, W)
    params = StreamParams(
        90,
        H,
        W,
        steps=1,
        propagation_steps=(0,),
        propagation=PropagationParams(strength=strength),
        tolerance=tolerance,
    )
    case = Case(params, flows=(still, still))
    alpha, largest = schedule.alphas_cumprod()[case.grid[0]], []

    def predict(latent, step, frames):
        v = case.predict(latent, step, frames)
        largest.append(schedule.predict(latent, v, alpha)[0].abs().max())
        return v

    error = (rest_of(case.stream(predict=predict)) - case.at_once()).abs().max()
    assert error <= params.propagation_error * 2 * max(largest) + 1e-5
    if strength in (0.5, 0.9) and tolerance == 0.1:
        assert error > 1e-3, "the bound was not put to the test"


def test_look_ahead():
    assert look_ahead(0.5) == 20
    assert look_ahead(0.5, 0.1) == 4
    assert look_ahead(0.0) == 0
    assert look_ahead(0.9) == look_ahead(1.0) == LONGEST_LOOK_AHEAD

    def error(strength, frames=1000):
        propagation = PropagationParams(strength=strength)
        params = StreamParams(frames, H, W, propagation_steps=(28,), propagation=propagation)
        return params.propagation_error

    assert error(0.5) == 0.5**20 < 1e-6
    assert error(0.9) == 0.9**64
    assert error(1.0) == 1
    assert error(0.0) == 0
    assert error(0.5, BLOCK + 20) == 0 < error(0.5, BLOCK + 21)


def test_pieces_of_any_size_give_the_same_bits():
    whole = rest_of(propagated().stream())
    for count in (1, 2, 3, 7, 8, 11, 44):
        assert torch.equal(rest_of(propagated().stream(), count), whole), count


def test_frames_come_to_an_end():
    stream = propagated(10).stream()
    parts = [stream.advance(4) for _ in range(4)]
    assert [None if part is None else part.shape[2] for part in parts] == [4, 4, 2, None]
    assert stream.fetched == 10
    with pytest.raises(InputError, match="1 or more"):
        stream.advance(0)


def test_noise_and_flow_are_asked_for_in_order_and_once():
    case, asked = propagated(), []

    def noise(frames):
        asked.extend(frames)
        return case.noise[:, :, frames.start : frames.stop]

    rest_of(LatentStream(case.params, case.predict, noise, case.flow), 5)
    assert asked == list(range(45))
    assert case.pairs == list(range(44))


class Stop(Exception):
    """What a cancelled run raises."""


class Interrupted(Case):
    """Raises Stop at one of the calls of one callback."""

    def __init__(self, params, where, call):
        super().__init__(params)
        self.where, self.left = where, call

    def stream(self):
        def watched(name, callback):
            def call(*args):
                self.left -= name == self.where
                if name == self.where and self.left == 0:
                    raise Stop
                return callback(*args)

            return call

        return LatentStream(
            self.params,
            watched("predict", self.predict),
            watched("noise", lambda frames: self.noise[:, :, frames.start : frames.stop]),
            watched("flow", self.flow),
            progress=watched("progress", lambda done, total: None),
            check_cancelled=watched("check", lambda: None),
        )


@pytest.mark.parametrize("where", ["check", "predict", "progress", "noise", "flow"])
def test_an_interrupted_stream_goes_on_with_the_same_bits(where):
    params = StreamParams(
        22, H, W, steps=2, propagation_steps=(0, 1), propagation=PATCHY, tolerance=0.1
    )
    assert params.propagation_error > 0
    whole = rest_of(Case(params).stream())
    for call in range(1, 100, 1 if where == "check" else 3):
        stream = Interrupted(params, where, call).stream()
        try:
            stream.advance(22)
        except Stop:
            restored = Case(params).stream()
            restored.restore(stream.state())
            assert torch.equal(rest_of(stream), whole), call
            assert torch.equal(rest_of(restored), whole), call
        else:
            assert call > 3, call
            break


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"propagation_steps": (1, 3)},
        {"propagation_steps": (0, 1, 4), "tolerance": 0.1},
        {"segment_length": 4, "overlap": 3},
        {"segment_length": 1, "overlap": 0, "propagation_steps": (2,)},
        {"segment_length": 16, "overlap": 9, "propagation_steps": (0, 4)},
    ],
)
def test_what_is_held_does_not_grow_with_the_scene(options):
    def most(frames):
        params = StreamParams(frames, 2, 2, steps=5, **options)
        still = torch.zeros(1, 2, 2, 2)
        held, sizes = [], []
        stream = LatentStream(
            params,
            lambda latent, step, frames: latent * 0.5,
            lambda frames: torch.ones(1, 4, len(frames), 2, 2),
            lambda pair: (still, still),
            progress=lambda done, total: held.append(stream.held),
        )
        while stream.advance(8) is not None:
            sizes.append(sum(x.nbytes for x in stream.state().tensors.values()))
        return max(held), max(sizes), params.most_held

    held, size, bound = most(400)
    # That one ends at the same place in a segment (every 6, 1, 1 or 7 frames) and in a block.
    assert (held, size) == most(400 - 168)[:2]
    assert held <= bound
    # A pair's flows have as many values as a frame; some finished frames wait to be fetched.
    assert size <= (2 * bound + 8 + BLOCK) * 4 * 4 * 4


def test_progress_counts_every_pass_of_the_scene():
    case, seen = propagated(), []
    stream = case.stream(progress=lambda done, total: seen.append((done, total)))
    rest_of(stream, 3)
    total = 3 * len(case.params.plan)
    assert seen == [(i + 1, total) for i in range(total)]


def test_denoised_predictions_at_sigmas_give_the_same_latent():
    case = propagated(20)
    sigmas = schedule.sigmas(3)
    alphas = schedule.alphas_cumprod()[schedule.timesteps(3)]

    def denoised(latent, step, frames):
        kept = latent / (1 + sigmas[step] ** 2).sqrt()
        return schedule.predict(kept, case.predict(kept, step, frames), alphas[step])[0]

    got = rest_of(case.stream(predict=denoised, ddim=DenoisedDDIM(sigmas)))
    torch.testing.assert_close(got, case.at_once(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "at least one"),
        ({"overlap": 8}, "overlap"),
        ({"steps": 0}, "sampling steps"),
        ({"h": 0}, "0x7"),
        ({"propagation_steps": (30,)}, "0 to 29"),
        ({"tolerance": 0.0}, "tolerance"),
    ],
)
def test_impossible_params_are_named(options, message):
    with pytest.raises(InputError, match=message):
        StreamParams(**{"frames": 9, "h": H, "w": W, **options})


def test_callbacks_that_return_another_shape_are_named():
    params = StreamParams(9, H, W, steps=2, propagation_steps=(1,))
    good = torch.zeros(1, 4, 9, H, W)

    def run(predict: Any = lambda x, *_: x, noise: Any = good, flow: Any = good[:, :2, 0]):
        def noise_of(frames):
            return noise[:, :, frames.start : frames.stop]

        LatentStream(params, predict, noise_of, lambda pair: (flow, flow)).advance(9)

    run()
    with pytest.raises(InputError, match="prediction"):
        run(predict=lambda x, *_: x[:, :, 1:])
    with pytest.raises(InputError, match="noise"):
        run(noise=good[:, :3])
    with pytest.raises(InputError, match="forward flow of pair 0"):
        run(flow=good[:, :1, 0])
    with pytest.raises(InputError, match="but no flow"):
        LatentStream(params, lambda x, step, frames: x, lambda frames: good)
