from typing import Any

import pytest
import tiny
import torch
from generated import det
from golden_cases import GOLDEN, PIPELINE, pipeline_inputs

from uav_core import InputError, load_unet, upscale
from uav_core.frames.color import color_fix
from uav_core.longvideo import CoreEngine, LongVideoParams
from uav_core.sampling import schedule
from uav_core.sampling.guidance import GuidanceRange
from uav_core.sampling.ladder import Setting
from uav_core.sampling.pipeline import decode, sample


@pytest.mark.parametrize("name", PIPELINE)
def test_golden(name):
    check_golden(name)


@pytest.mark.usefixtures("ways")
def test_golden_in_all_ways():
    """The shortest: each network has all its cases computed in all ways."""
    check_golden("pipeline/T5s4")


def check_golden(name):
    latents, frames = upscale(tiny.unet(), tiny.vae("vae_3d"), **pipeline_inputs(name))
    torch.testing.assert_close(latents, GOLDEN[f"{name}/latents"], rtol=1e-4, atol=1e-4)
    if f"{name}/frames_out" in GOLDEN:
        torch.testing.assert_close(frames, GOLDEN[f"{name}/frames_out"], rtol=1e-4, atol=1e-4)


def test_weights_that_ask_for_trailing_time_steps():
    weights = {**tiny.unet_weights(tiny.QUICK_UNET), "trailing_timesteps": torch.ones(1)}
    unet, seen = load_unet(weights), []
    assert unet.params.trailing and "trailing_timesteps" in unet.state_dict()
    unet.register_forward_pre_hook(lambda _, given: seen.append(given[1].tolist()))
    shape = (1, 4, 2, 8, 10)
    frames = det("trailing/frames", (1, 3, *shape[2:])).clamp(-1, 1)
    run = {
        "noise": det("trailing/noise", shape),
        "low_res_noise": det("trailing/low_res", frames.shape),
        "noise_level": 20,
    }
    sample(unet, frames, tiny.context(), steps=2, guidance=1.0, **run)
    params = LongVideoParams(steps=2, guidance=1.0, propagation_steps="")
    engine = CoreEngine(unet, tiny.quick_vae(), tiny.context(), torch.nn.Identity(), params, {})
    for step in (0, 1):
        engine.predict(run["noise"], step, frames, Setting())
    assert seen == 2 * [[999], [499]]
    assert torch.equal(engine.ddim.landings, schedule.previous_alphas(2, trailing=True))


@pytest.mark.parametrize("tile", [None, 16])
@torch.inference_mode()
def test_a_self_ensemble_is_the_mean_of_mirrored_decodings(tile):
    z, frames = det("mirror/z", (1, 4, 3, 16, 24)) * 0.1, det("mirror/f", (1, 3, 3, 16, 24))
    frames = frames.clamp(-1, 1)
    run = {"group": 2, "tile": tile, "tile_overlap": 4}

    def decoded(*axes: int, **more: Any) -> torch.Tensor:
        clips = (x.flip(axes) for x in (z, frames))
        return decode(tiny.quick_vae("vae_video"), *clips, **run, **more).flip(axes)

    parts = [decoded(), decoded(-1), decoded(-2), decoded(-2, -1)]
    made = decoded(self_ensemble=True)
    torch.testing.assert_close(made, sum(parts) / 4, rtol=1e-4, atol=1e-5)
    # A mirrored clip gives the mirrored result, which one decoding does not.
    torch.testing.assert_close(decoded(-1, self_ensemble=True), made, rtol=1e-4, atol=1e-4)
    assert (parts[0] - parts[1]).abs().max() > 0.01
    # The colours are corrected once, on the mean.
    fixed = decoded(self_ensemble=True, color="adain")
    torch.testing.assert_close(fixed, color_fix(made, frames, "adain"), rtol=1e-4, atol=1e-4)


def test_guidance_in_a_part_of_the_run():
    shape = (1, 4, 3, 8, 10)
    frames = det("range/frames", (1, 3, *shape[2:])).clamp(-1, 1)
    noise, text = det("range/noise", shape), tiny.context()
    low_res_noise = det("range/low_res", (1, 3, *shape[2:]))
    batches = []

    def unet(latent, *args, **kwargs):
        batches.append(len(latent))
        return tiny.quick_unet()(latent, *args, **kwargs)

    unet.params = tiny.quick_unet().params

    def run(**options):
        batches.clear()
        args = {"steps": 4, "noise": noise, "low_res_noise": low_res_noise}
        return sample(unet, frames, text, **{**args, **options})  # type: ignore[arg-type]

    whole, plain = run(), run(guidance=1.0)
    assert torch.equal(run(guided=GuidanceRange(0, 1)), whole)
    middle = run(guided=GuidanceRange(0.25, 0.75))
    assert batches == [1, 2, 2, 1]
    assert torch.equal(run(guided=GuidanceRange(0.5, 0.5)), plain)
    assert (middle - whole).abs().max() > 1e-2 < (middle - plain).abs().max()


@pytest.mark.parametrize("span", [(0.6, 0.4), (-0.1, 1), (0, 1.5)])
def test_an_impossible_part_is_refused(span):
    with pytest.raises(InputError, match="guides every step"):
        GuidanceRange(*span)
