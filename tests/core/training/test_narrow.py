"""A decoder with fewer channels at full size."""

from typing import Any

import pytest
import torch
from generated import det

from uav_core.errors import InputError
from uav_core.models.vae import TemporalVAE, VAEParams
from uav_core.sampling.pipeline import load_vae
from uav_core.training.__main__ import parser
from uav_core.training.narrow import narrow
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


@pytest.mark.parametrize("width", [0, 96, 50, 64, 144])
def test_widths_that_are_refused(width):
    with pytest.raises(InputError, match="groups of 3, such as 48"):
        narrow(TemporalVAE(PARAMS), width)


def test_the_command_leaves_all_weights_with_a_narrower_decoder(tmp_path):
    options = parser().parse_args(["narrow", "--width", "48", "--output", str(tmp_path / "w")])
    options.stage(options)
    names = {path.name for path in (tmp_path / "w").glob("*.safetensors")}
    assert names == {path.name for path in included.FOLDER.glob("*.safetensors")}
    vae = load_vae(tmp_path / "w" / f"{included.VAE_VIDEO}.safetensors")
    assert vae.params.decoder_channels == (48, 64, 96)
    with torch.inference_mode():
        assert vae.decode(Z, LOW_RES).isfinite().all()
