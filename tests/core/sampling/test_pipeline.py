import pytest
import tiny
import torch
from generated import det
from golden_cases import GOLDEN, PIPELINE, pipeline_inputs

from uav_core import InputError, upscale
from uav_core.sampling.guidance import GuidanceRange
from uav_core.sampling.pipeline import sample


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
