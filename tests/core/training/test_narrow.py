"""A decoder with fewer channels at full size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generated import det
from safetensors.torch import load_file
from torch import Tensor

from uav_core.errors import InputError
from uav_core.models.vae import TemporalVAE, VAEParams
from uav_core.sampling.pipeline import load_vae
from uav_core.training import export
from uav_core.training.__main__ import parser
from uav_core.training.data.batches import BatchParams
from uav_core.training.data.clips import ClipSource
from uav_core.training.distil import FullSize, pieces_of
from uav_core.training.narrow import narrow, strongest
from uav_core.weights import included

PARAMS = VAEParams(channels=(96, 32, 32), resnets=1, condition_channels=32)
Z, LOW_RES = det("z", (1, 4, 2, 8, 8)), det("low_res", (1, 3, 2, 8, 8)).clamp(-1, 1)


def silenced(vae: TemporalVAE, channels: slice) -> None:
    """Let these channels at full size count for nothing."""
    decoder: Any = vae.decoder
    for resnet in decoder.up_blocks[-1].resnets:
        for conv in (resnet.conv2, resnet.conv_3d, resnet.conv1):
            conv.weight[:, channels] = 0 if conv.weight.shape[1] == 96 else conv.weight[:, channels]
    vae.decoder.conv_out.weight[:, channels] = 0


@torch.no_grad()
def test_channels_that_count_for_nothing_are_what_goes():
    torch.manual_seed(0)
    vae = TemporalVAE(PARAMS).eval()
    silenced(vae, slice(24, 72))
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    less = narrow(vae, 48)
    torch.testing.assert_close(less.decode(Z, LOW_RES), vae.decode(Z, LOW_RES), rtol=0, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert less.params.decoder_channels == (48, 32, 32) and less.params.channels == PARAMS.channels
    assert VAEParams.from_state_dict(less.state_dict()) == less.params
    assert less.decoder.conv_norm_out.num_groups == 16


def test_channels_are_numbered_where_the_network_is():
    assert strongest(torch.empty(32, device="meta"), 48).device.type == "meta"


@pytest.mark.parametrize("width", [0, 96, 50, 64, 144])
def test_widths_that_are_refused(width):
    with pytest.raises(InputError, match="groups of 3, such as 48"):
        narrow(TemporalVAE(PARAMS), width)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    """A run of a few steps on the included weights, killed in the middle."""
    folder = tmp_path_factory.mktemp("distil") / "run"
    given = "--width 24 --steps 6 --pieces 2 --size 64 --frames 2 --precision fp32 --device cpu"
    words = ["distil", "--data", str(data), "--run", str(folder), *given.split()]
    for more in (["--until", "3"], []):
        options = parser().parse_args([*words, *more])
        options.stage(options)
    return folder


def distance(folder: Path, teacher: TemporalVAE) -> float:
    student = load_vae(folder / f"{included.VAE_VIDEO}.safetensors")
    with torch.inference_mode():
        return float((student.decode(Z, LOW_RES) - teacher.decode(Z, LOW_RES)).abs().mean())


def test_the_command_leaves_all_weights_with_a_narrower_decoder(run):
    names = {path.name for path in run.glob("*.safetensors")}
    assert names == {path.name for path in included.FOLDER.glob("*.safetensors")}
    vae = load_vae(run / f"{included.VAE_VIDEO}.safetensors")
    assert vae.params.decoder_channels == (24, 64, 96)


def test_only_the_layers_at_full_size_learn(run):
    before, after = (
        load_file(folder / f"{included.VAE_VIDEO}.safetensors") for folder in (included.FOLDER, run)
    )
    parts = "up_blocks.1.upsamplers", "up_blocks.2", "conv_norm_out", "conv_out"
    learning = tuple(f"decoder.{part}" for part in parts)
    for name, value in after.items():
        same = value.shape == before[name].shape and torch.equal(value, before[name])
        assert same != name.startswith(learning), name


def test_it_comes_nearer_to_the_decoder_it_was_cut_from(run, tmp_path):
    teacher = load_vae(included.FOLDER / f"{included.VAE_VIDEO}.safetensors")
    export.write(
        tmp_path / f"{included.VAE_VIDEO}.safetensors",
        narrow(teacher, 24).state_dict(),
        torch.float16,
    )
    assert distance(run, teacher) < distance(tmp_path, teacher)


def test_the_layers_at_full_size_give_the_decoders_own_picture(data):
    """What a piece keeps of the wide decoder belongs together; piece 3 is always the same."""
    torch.manual_seed(0)
    teacher = TemporalVAE(PARAMS).eval()

    def latents(clean: Tensor, low: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(1, 4, *low.shape[2:]), torch.zeros(1)

    makers = [
        pieces_of(teacher, ClipSource(data), latents, BatchParams(1, 2, 64), seed=0)
        for _ in range(2)
    ]
    x, picture = makers[0](3)
    with torch.inference_mode():
        out = FullSize(teacher.decoder)(x.float()[None])[0]
    torch.testing.assert_close(out, picture.float(), rtol=0, atol=2e-2)
    assert all(torch.equal(a, b) for a, b in zip((x, picture), makers[1](3), strict=True))
