"""Generate small weights that are enough to run every node, without a download.

The weights are not trained. The U-Net's weights are random. The VAE's are written by hand, so that
its decoder passes the low-resolution frames through its layers and interpolates them. The
output is a recognisable, smoothly enlarged clip, and a test can detect a swapped axis or a shuffled
frame. The weights add no detail.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from uav_core.models.unet import TemporalUNet, UNetParams
from uav_core.models.vae import TemporalVAE, VAEParams

UNET = UNetParams(channels=(32, 64, 64, 128), context_dim=64, heads=2, time_dim=128)
VAE = VAEParams(channels=(32, 32, 64), condition_channels=32)
TEXT_TOKENS = 77
# Weight of the sampled latent in the decoded picture; the input frames have weight 1.
LATENT_SHARE = 0.008
# File names in the shipped workflows, in ComfyUI's own folders.
FILES = {
    "unet": "diffusion_models/uav_unet.safetensors",
    "vae": "vae/uav_vae_video.safetensors",
    "flow": "optical_flow/uav_flow_raft.safetensors",
    "text_encoder": "text_encoders/uav_text_encoder.safetensors",
}
TEXT_WIDTH = UNET.context_dim
TEXT_LAYERS = 23  # ComfyUI detects the kind of text encoder by this number
VOCABULARY = 49408

log = logging.getLogger("demo_weights")


def write_all(folder: Path) -> dict[str, Path]:
    """Write missing weights into the models folder ``folder``.

    Returns the paths by name (the keys of FILES).
    """
    makers = {
        "unet": unet_weights,
        "vae": vae_weights,
        "flow": flow_weights,
        "text_encoder": text_encoder_weights,
    }
    for name, maker in makers.items():
        path = folder / FILES[name]
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            save_file(maker(), part, metadata={"uav.note": "generated, not trained"})
            part.replace(path)
    return {name: folder / file for name, file in FILES.items()}


def unet_weights() -> dict[str, Tensor]:
    """A random U-Net with an embedding of the empty text, so that texts may be unconnected."""
    generator = torch.Generator().manual_seed(0)
    weights = random_weights(TemporalUNet(UNET), generator)
    shape = (TEXT_TOKENS, UNET.context_dim)
    weights["null_text_embedding"] = torch.randn(shape, generator=generator)
    return weights


def random_weights(module: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Norms with weight 1 and bias 0; other weights normal, scaled to keep the variance."""
    weights = {}
    for key, value in module.state_dict().items():
        if value.ndim > 1:
            std = value[0].numel() ** -0.5
            weights[key] = torch.randn(value.shape, generator=generator) * std
        elif key.endswith("freqs"):
            weights[key] = value.clone()
        else:
            weights[key] = torch.full_like(value, float(key.endswith("weight")))
    return weights


def flow_weights() -> dict[str, Tensor]:
    """An untrained RAFT: its flow is inconsistent, so propagation runs and changes little."""
    from torchvision.models.optical_flow import raft_large

    torch.manual_seed(0)
    return raft_large(weights=None).state_dict()


def text_encoder_weights(width: int = TEXT_WIDTH, device: str = "cpu") -> dict[str, Tensor]:
    """A random text encoder in the Hugging Face layout, tiny except for its vocabulary."""
    generator = torch.Generator(device).manual_seed(2)
    stem = "text_model"
    shapes: dict[str, tuple[int, ...]] = {
        f"{stem}.embeddings.token_embedding.weight": (VOCABULARY, width),
        f"{stem}.embeddings.position_embedding.weight": (TEXT_TOKENS, width),
    }
    norms = [f"{stem}.final_layer_norm"]
    for i in range(TEXT_LAYERS):
        layer = f"{stem}.encoder.layers.{i}"
        norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
        linears = {f"self_attn.{p}_proj": (width, width) for p in ("q", "k", "v", "out")}
        linears |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        for name, shape in linears.items():
            shapes[f"{layer}.{name}.weight"] = shape
            shapes[f"{layer}.{name}.bias"] = shape[:1]
    weights = {
        key: torch.randn(shape, generator=generator, device=device) * shape[-1] ** -0.5
        for key, shape in shapes.items()
    }
    for norm in norms:
        weights[f"{norm}.weight"] = torch.ones(width)
        weights[f"{norm}.bias"] = torch.zeros(width)
    return weights


def vae_weights() -> dict[str, Tensor]:
    """A ``vae_video`` that interpolates the low-resolution frames.

    Channels 0-2 carry the picture and 3-5 its negative along the residual paths; the branches are
    zero. The last activation does not change the difference, as SiLU(x) - SiLU(-x) = x.
    """
    model = TemporalVAE(VAE)
    weights = {key: torch.zeros_like(value) for key, value in model.state_dict().items()}
    for key in weights:
        if "norm" in key and key.endswith("weight"):
            weights[key].fill_(1.0)

    picture = torch.cat((torch.eye(3), -torch.eye(3)))
    weights["decoder.condition_in.0.conv_shortcut.weight"][:6, :, 0, 0] = picture
    carry(weights["decoder.condition_fuse.shared.0.conv_shortcut.weight"], [[1.0]])
    carry(weights["decoder.condition_fuse.shift.weight"], [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    smooth = torch.tensor([1.0, 2.0, 1.0]) / 4
    for key in weights:
        if "decoder.up_blocks" in key and "upsamplers" in key and key.endswith("weight"):
            carry(weights[key], torch.outer(smooth, smooth))
        if "decoder.up_blocks" in key and "conv_shortcut.weight" in key:
            carry(weights[key], [[1.0]])
    latent = weights["decoder.conv_in.weight"]
    generator = torch.Generator().manual_seed(1)
    latent[:6] = torch.randn(latent[:6].shape, generator=generator) * LATENT_SHARE
    weights["post_quant_conv.weight"][:, :, 0, 0] = torch.eye(4) * 0.08333
    # The last norm gives unit variance; a picture in [-1, 1] has about a third of that.
    weights["decoder.conv_norm_out.weight"].fill_(0.4)
    weights["decoder.conv_out.weight"][:, :6, 1, 1] = picture.T
    return weights


def carry(kernel: Tensor, taps: Tensor | list[list[float]]) -> None:
    """Make a convolution pass on channels 0-5, each through ``taps``."""
    for channel in range(6):
        kernel[channel, channel] = torch.as_tensor(taps, dtype=kernel.dtype)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a ComfyUI models folder")
    for written in write_all(parser.parse_args().folder).values():
        log.info("%s", written)
