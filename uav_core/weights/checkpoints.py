"""From a weight file to a checked state dict in this package's own key names.

read -> unwrap -> canonical names -> detect by keys -> (the caller infers sizes) -> strict load.
The layouts are those of the authors' release (Upscale-A-Video, arXiv 2312.06640), LaVie's
video super-resolution (arXiv 2309.15103, the same U-Net under other names), princeton-vl/RAFT
and torchvision.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from torch import Tensor, nn

from ..errors import CheckpointMismatchError, WrongCheckpointError
from .files import open_wrappers, read_state_dict, stamp

T = TypeVar("T")


class Kind(str, Enum):
    """The kind of a state dict; the members equal their strings (`Kind.UNET == "unet"`)."""

    _value_: str
    label: str
    """The kind in words for users."""

    def __new__(cls, value: str, label: str) -> Kind:
        kind = str.__new__(cls, value)
        kind._value_, kind.label = value, label
        return kind

    UNET = "unet", "an Upscale-A-Video temporal U-Net"
    VAE_3D = "vae_3d", "a temporal VAE without low-res guidance"
    VAE_VIDEO = "vae_video", "a temporal VAE with low-res guidance"
    RAFT = "raft", "a RAFT flow model (raft-things layout)"
    RAFT_TORCHVISION = "raft_torchvision", "a RAFT flow model (torchvision layout)"
    TEXT_ENCODER = "text_encoder", "a CLIP text encoder"
    QUALITY_TEXT = "quality_text", "the text embeddings of a small U-Net"
    # Kinds that are of no use here, known only to name them in errors.
    SD_X4_UNET = "sd_x4_unet", "the image-only U-Net of the Stable Diffusion x4 upscaler"
    SD_UNET = "sd_unet", "a Stable Diffusion U-Net"
    SD_CHECKPOINT = "sd_checkpoint", "a whole Stable Diffusion checkpoint"
    SD_VAE = "sd_vae", "a plain (image, 8x) Stable Diffusion VAE"
    CLIP = "clip", "a CLIP model with an image half"
    OPEN_CLIP = "open_clip", "an OpenCLIP text encoder in OpenCLIP's own layout"
    LORA = "lora", "a LoRA"
    RAFT_SMALL = "raft_small", "the small RAFT flow model"
    SEEDVR2 = "seedvr2", "a SeedVR2 video restoration model"
    VIDEO_MODEL = "video_model", "another video diffusion model"
    IMAGE_UPSCALER = "image_upscaler", "an image upscaler (ESRGAN family)"
    UNKNOWN = "unknown", "nothing this pack knows"


@dataclass(frozen=True)
class Checkpoint:
    """A recognised state dict in canonical names, with where it came from.

    A U-Net's may hold `null_text_embedding` (77, dim) besides the network's own keys.
    """

    kind: Kind
    state_dict: dict[str, Tensor] = field(repr=False)
    metadata: dict[str, str]
    source: str
    stamp: tuple[int, int] | None = None
    """`files.stamp` of the file before it was read; None without a file."""


def load_checkpoint(
    source: str | os.PathLike[str] | Mapping[str, object],
    expected: Kind | str | Iterable[Kind | str],
) -> Checkpoint:
    """Read `source` (a path, or a state dict, wrapped or not) and check that its kind is expected.

    Raises UnreadableCheckpointError, UnsafeCheckpointError or WrongCheckpointError.
    """
    metadata: dict[str, str] = {}
    stamped = None
    if isinstance(source, Mapping):
        name, raw = "the given state dict", source
    else:
        name = os.fspath(source)
        with suppress(OSError):  # the reader says what is wrong
            stamped = stamp(source)
        raw, metadata = read_state_dict(source)
    state_dict = canonical(unwrap(raw))
    kind = detect(state_dict)
    wanted = [Kind(expected)] if isinstance(expected, str) else [Kind(kind) for kind in expected]
    if kind not in wanted:
        labels = " or ".join(f"{kind.label} ({kind.value})" for kind in wanted)
        raise WrongCheckpointError(
            f"{name} {describe(state_dict)}; expected {labels}. Choose such a file instead."
        )
    return Checkpoint(kind, state_dict, metadata, name, stamped)


# Prefixes that training and packaging scripts put before every name.
_PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.diffusion_model.",
    "diffusion_model.",
    "first_stage_model.",
    "cond_stage_model.transformer.",
    "cond_stage_model.",
    "text_encoder.",
    "transformer.text_model.",
    "state_dict.",
    "model.",
    "unet.",
    "vae.",
)
_KEPT_PARTS = {"transformer.text_model.": "text_model."}
# The share of keys that must have a prefix: one or two other keys (a step counter, an embedding)
# must not keep it, but the networks of one checkpoint must not lose theirs.
_NEARLY_ALL = 0.9


def unwrap(obj: object) -> dict[str, Tensor]:
    """The plain state dict in `obj`: wrappers opened, prefixes common to the keys removed.

    Opens `state_dict`, `model_state_dict`, `ema`, `params_ema`, `model`, `module`, also nested,
    averaged weights first; removes `module.`, `model.diffusion_model.` and the like, repeatedly,
    if at least nine in ten keys have them. {} if there are no named tensors.
    """
    return without_prefixes(open_wrappers(obj))


def without_prefixes(entries: Mapping[str, T]) -> dict[str, T]:
    """``entries`` without the prefixes that ``unwrap`` removes, whatever the values are."""
    entries = dict(entries)
    while entries:
        prefix = next((p for p in _PREFIXES if _is_common(p, entries)), None)
        if prefix is None:
            break
        kept = _KEPT_PARTS.get(prefix, "")
        entries = {
            kept + key[len(prefix) :] if key.startswith(prefix) else key: value
            for key, value in entries.items()
        }
    return entries


def _is_common(prefix: str, keys: Iterable[str]) -> bool:
    has = [key.startswith(prefix) for key in keys]
    return sum(has) >= _NEARLY_ALL * len(has)


_RENAMES = (
    # LaVie's video super-resolution U-Net
    (re.compile(r"^(down|mid|up)_temporal_block(s?)\."), r"\1_temp_block\2."),
    (re.compile(r"\.resblocks_3d_t\."), ".resblocks_3d_temporal."),
    (re.compile(r"\.resblocks_3d_s\."), ".resblocks_3d_spatial."),
    # newer diffusers' names for the VAE's one attention
    (re.compile(r"^((?:en|de)coder\.mid_block\.attentions\.\d+)\.to_q\."), r"\1.query."),
    (re.compile(r"^((?:en|de)coder\.mid_block\.attentions\.\d+)\.to_k\."), r"\1.key."),
    (re.compile(r"^((?:en|de)coder\.mid_block\.attentions\.\d+)\.to_v\."), r"\1.value."),
    (re.compile(r"^((?:en|de)coder\.mid_block\.attentions\.\d+)\.to_out\.0\."), r"\1.proj_attn."),
    # newer transformers leave out `text_model.`
    (re.compile(r"^(embeddings\.(?:token|position)_|encoder\.layers\.|final_layer_norm\.)"),
     r"text_model.\1"),
)  # fmt: skip
_VAE_ATTENTION = re.compile(
    r"^(en|de)coder\.mid_block\.attentions\.\d+\.(query|key|value|proj_attn)\.weight$"
)
# Entries that are no weights: a table, and the empty tensors by which ComfyUI's 'ModelSave' marks
# v-prediction and a schedule that ends in pure noise.
_NO_WEIGHTS = frozenset(("text_model.embeddings.position_ids", "v_pred", "ztsnr"))


def canonical(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under this package's names, those of the authors' release.

    Renames the keys of LaVie's U-Net, newer diffusers' VAE attention (whose 1x1-convolution
    weights become linear ones) and newer transformers' text encoder. Leaves out `position_ids`
    and ComfyUI's markers `v_pred` and `ztsnr`, which are not weights. Unknown names stay;
    idempotent.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        name = canonical_name(name)
        if name in _NO_WEIGHTS:
            continue
        if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) and _VAE_ATTENTION.match(name):
            tensor = tensor[:, :, 0, 0]
        result[name] = tensor
    return result


def canonical_name(name: str) -> str:
    """A tensor's name in the authors' release, from its name in any known layout."""
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def detect(state_dict: Mapping[str, Any]) -> Kind:
    """The kind of network that canonical keys belong to; Kind.UNKNOWN if no kind fits.

    A 4x Stable Diffusion VAE has exactly the keys of `vae_3d` and is taken for one: `vae_3d` was
    made from it, and nothing in the file tells them apart. Only `shape` and `ndim` of the values
    are used; a value may be None if its shape is not known.
    """
    return next(kind for kind, is_it in _SIGNATURES if is_it(state_dict))


def _has(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda sd: all(key in sd for key in keys)


def _contains(*parts: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda sd: any(part in key for key in sd for part in parts)


def _is_temporal_unet(sd: Mapping[str, Any]) -> bool:
    return _has("conv_in.weight", "class_embedding.weight")(sd) and _contains(
        "down_temp_blocks.", ".resblock_temporal.", ".attn_temporal."
    )(sd)


def _is_x4_unet(sd: Mapping[str, Any]) -> bool:
    if not any(key.startswith(("down_blocks.", "input_blocks.")) for key in sd):
        return False
    first = sd.get("conv_in.weight", sd.get("input_blocks.0.0.weight"))
    return first is not None and first.ndim == 4 and first.shape[1] == 7


def _is_sd_checkpoint(sd: Mapping[str, Any]) -> bool:
    return all(
        any(key.startswith(part) for key in sd)
        for part in ("model.diffusion_model.", "first_stage_model.")
    )


_VAE_KEYS = ("encoder.conv_in.weight", "decoder.conv_in.weight")

# The first signature that fits decides.
_SIGNATURES: tuple[tuple[Kind, Callable[[Mapping[str, Any]], bool]], ...] = (
    (Kind.LORA, _contains(".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", "lora.down.")),
    (Kind.SD_CHECKPOINT, _is_sd_checkpoint),
    (Kind.UNET, _is_temporal_unet),
    (Kind.VAE_VIDEO, _has("decoder.condition_in.0.conv1.weight", *_VAE_KEYS)),
    (Kind.SD_VAE, _has("encoder.down_blocks.3.resnets.0.conv1.weight", *_VAE_KEYS)),
    (Kind.SD_VAE, _has("encoder.down.0.block.0.conv1.weight", *_VAE_KEYS)),
    (Kind.VAE_3D, _has("encoder.down_blocks.2.resnets.0.conv1.weight", *_VAE_KEYS)),
    (Kind.RAFT, _has("fnet.conv1.weight", "update_block.gru.convz1.weight")),
    (Kind.RAFT_SMALL, _has("fnet.conv1.weight", "update_block.gru.convz.weight")),
    (Kind.RAFT_TORCHVISION,
     _has("feature_encoder.convnormrelu.0.weight", "mask_predictor.conv.weight")),
    (Kind.RAFT_SMALL, _has("feature_encoder.convnormrelu.0.weight")),
    (Kind.CLIP, lambda sd: _contains("text_model.")(sd) and _contains("vision_model.")(sd)),
    (Kind.TEXT_ENCODER, _has("text_model.encoder.layers.0.self_attn.q_proj.weight")),
    (Kind.QUALITY_TEXT, _has("null_text_embedding", "negative_text_embedding")),
    (Kind.OPEN_CLIP, _contains("transformer.resblocks.")),
    (Kind.SEEDVR2, _has("vid_in.proj.weight")),
    (Kind.VIDEO_MODEL, _contains("motion_modules.", ".temporal_transformer", ".time_stack.",
                                 "temp_convs.", ".attn_temp.")),
    (Kind.VIDEO_MODEL, _has("patch_embedding.weight")),
    (Kind.SD_X4_UNET, _is_x4_unet),
    (Kind.SD_UNET, _has("conv_in.weight", "time_embedding.linear_1.weight")),
    (Kind.SD_UNET, _has("input_blocks.0.0.weight", "time_embed.0.weight")),
    (Kind.IMAGE_UPSCALER, _contains("rdb1.conv1.", "RDB1.conv1.", "residual_group.blocks.")),
    (Kind.UNKNOWN, lambda _: True),
)  # fmt: skip


def describe(state_dict: Mapping[str, Tensor]) -> str:
    """One line that says what a canonical state dict is, to follow its name in a message."""
    kind = detect(state_dict)
    counts = f"{_count(len(state_dict), 'tensor')}, {_parameters(state_dict)} parameters"
    if kind is Kind.UNKNOWN:
        first = ", ".join(list(state_dict)[:3]) or "no keys"
        return f"looks like {kind.label}: {counts}, beginning with {first}"
    return f"looks like {kind.label} ({kind.value}): {counts}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _parameters(state_dict: Mapping[str, Tensor]) -> str:
    number = sum(tensor.numel() for tensor in state_dict.values() if tensor.is_floating_point())
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)


def check_keys(module: nn.Module, state_dict: Mapping[str, Tensor], name: str) -> None:
    """Raise CheckpointMismatchError, with `name`, unless keys and shapes fit `module` exactly."""
    own = module.state_dict()
    faults = {
        "missing": [key for key in own if key not in state_dict],
        "unexpected": [key for key in state_dict if key not in own],
        "of wrong shape": [
            f"{key} {tuple(state_dict[key].shape)} instead of {tuple(tensor.shape)}"
            for key, tensor in own.items()
            if key in state_dict and state_dict[key].shape != tensor.shape
        ],
    }
    found = [_listing(fault, keys) for fault, keys in faults.items() if keys]
    if found:
        raise CheckpointMismatchError(
            f"{name} does not fit {type(module).__name__}, which has "
            f"{_count(len(own), 'tensor')}: {'; '.join(found)}. Expected a complete file of this "
            "network: download it again, or choose another file."
        )


def strict_load(module: nn.Module, state_dict: Mapping[str, Tensor], name: str) -> None:
    """Load weights whose keys and shapes fit `module` exactly.

    Copies them into the module's own dtype and device; a module on the meta device takes over the
    tensors themselves instead. If they do not fit, raises CheckpointMismatchError, with `name`,
    and leaves the module as it was.
    """
    check_keys(module, state_dict, name)
    on_meta = any(tensor.is_meta for tensor in module.state_dict().values())
    module.load_state_dict(state_dict, assign=on_meta)


def _listing(fault: str, keys: list[str], shown: int = 3) -> str:
    rest = ", ..." if len(keys) > shown else ""
    return f"{len(keys)} {fault} ({', '.join(keys[:shown])}{rest})"
