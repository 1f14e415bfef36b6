"""Turn the authors' release folder into safetensors inside a ComfyUI `models` folder.

    python -m uav_core.convert RELEASE_FOLDER OUT_FOLDER [--dtype fp16|fp32]

Each file gets its final name only when it is whole, so a run that was stopped can simply be
started again: files that are there and current are skipped.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError, FileError, InputError
from ..files import hash_file, save_tensors
from .checkpoints import Kind, load_checkpoint
from .raft import raft_to_torchvision

log = logging.getLogger(__name__)

DType = Literal["fp16", "fp32"]
Status = Literal["converted", "skipped", "missing", "failed"]

LICENSE = "S-Lab License 1.0 (non-commercial)"
# Version of the converted layout: raise it when names or contents change, so that files are made
# anew.
LAYOUT_VERSION = "1"


@dataclass(frozen=True)
class Part:
    """One network of the release: where its file is, and what it is converted to."""

    kind: Kind
    sources: tuple[str, ...]
    target: str
    # Kept in fp32 whatever --dtype says: the VAEs are exact in fp32 then, and RAFT's correlations
    # would lose small motions in fp16.
    always_fp32: bool = False

    @property
    def target_kind(self) -> Kind:
        """The kind of the converted file: flow weights change their layout."""
        return Kind.RAFT_TORCHVISION if self.kind is Kind.RAFT else self.kind


def _either(released: str) -> tuple[str, ...]:
    """The released file name, then the names of the same file in other formats."""
    stem = released.rsplit(".", 1)[0]
    return released, *(stem + suffix for suffix in (".safetensors", ".bin", ".pth", ".pt"))


PARTS = (
    Part(Kind.UNET, _either("unet/unet_video.bin"), "diffusion_models/uav_unet.safetensors"),
    Part(Kind.VAE_3D, _either("vae/vae_3d.bin"), "vae/uav_vae_3d.safetensors", always_fp32=True),
    Part(
        Kind.VAE_VIDEO,
        _either("vae/vae_video.bin"),
        "vae/uav_vae_video.safetensors",
        always_fp32=True,
    ),
    Part(
        Kind.RAFT,
        _either("propagator/raft-things.pth"),
        "optical_flow/uav_flow_raft.safetensors",
        always_fp32=True,
    ),
    Part(
        Kind.TEXT_ENCODER,
        ("text_encoder/pytorch_model.bin", "text_encoder/model.safetensors"),
        "text_encoders/uav_text_encoder.safetensors",
    ),
)

# The given folder may be any level of the downloaded repository.
_TOP_FOLDERS = ("", "upscale_a_video", "pretrained_models/upscale_a_video")


@dataclass(frozen=True)
class Outcome:
    """The result for one part; `detail` says in one line why it is missing or failed."""

    part: Part
    status: Status
    detail: str = ""


def convert_release(
    release: str | os.PathLike[str], out: str | os.PathLike[str], dtype: DType = "fp16"
) -> list[Outcome]:
    """Convert every part of a release folder that is there; one Outcome for each of PARTS.

    `dtype` is for the U-Net and the text encoder; VAEs and flow stay fp32, rotary tables are fp32,
    and counters are unchanged. A part that fails is logged and does not stop the others. Raises
    InputError if `release` is not a folder.
    """
    release, out = Path(release), Path(out)
    if not release.is_dir():
        raise InputError(
            f"{release} is not a folder: expected the authors' release, with unet/, vae/, "
            "propagator/ and text_encoder/ in it."
        )
    return [_attempt(part, release, out, dtype) for part in PARTS]


def _attempt(part: Part, release: Path, out: Path, dtype: DType) -> Outcome:
    target = out / part.target
    _remove_leftovers(target)
    candidates = (release / top / name for top in _TOP_FOLDERS for name in part.sources)
    source = next((path for path in candidates if path.is_file()), None)
    if source is None:
        return Outcome(part, "missing", f"no {part.sources[0]} in {release}")
    try:
        return _convert(part, source, target, "fp32" if part.always_fp32 else dtype)
    except (CheckpointError, FileError, OSError, SafetensorError) as error:
        detail = " ".join(str(error).split())
        if isinstance(error, SafetensorError):  # a full disk arrives as one of these, with no path
            detail = f"{target} could not be written ({detail})"
        log.error("failed    %s: %s", part.kind.value, detail)
        return Outcome(part, "failed", detail)


def _convert(part: Part, source: Path, target: Path, dtype: DType) -> Outcome:
    metadata = {
        "format": "pt",
        "uav.kind": part.target_kind.value,
        "uav.source": f"sha256:{hash_file(source.resolve(), algorithm='sha256')}",
        "uav.dtype": dtype,
        "uav.version": LAYOUT_VERSION,
        "license": LICENSE,
    }
    if target.is_dir():
        raise FileExistsError(f"{target} is a folder, not a file: move it away first.")
    if target.exists():
        present = _metadata(target)
        if present == metadata:
            log.info("skipped   %s: already converted", target)
            return Outcome(part, "skipped")
        if present is not None and "uav.source" not in present:
            raise FileExistsError(
                f"{target} exists and was not written by this converter: move it away first."
            )
    log.info("converting %s", source)
    expected = (Kind.RAFT, Kind.RAFT_TORCHVISION) if part.kind is Kind.RAFT else part.kind
    checkpoint = load_checkpoint(source, expected)
    state_dict = checkpoint.state_dict
    if checkpoint.kind is Kind.RAFT:
        state_dict = raft_to_torchvision(state_dict)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(target, _storable(state_dict, dtype), metadata)
    log.info("converted %s (%.0f MB)", target, target.stat().st_size / 1e6)
    return Outcome(part, "converted")


def _metadata(path: Path) -> dict[str, str] | None:
    """A safetensors file's metadata, {} if it has none, None if the file is not whole."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError:
        return None


def _storable(state_dict: Mapping[str, Tensor], dtype: DType) -> dict[str, Tensor]:
    """Tensors in the dtype to store, each with memory of its own, as safetensors requires."""
    wanted = torch.float16 if dtype == "fp16" else torch.float32
    result: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        if tensor.is_floating_point():
            # A rotary table is not a weight: rounding its 16 numbers would shift every frame.
            cast = tensor.to(torch.float32 if key.endswith("freqs") else wanted)
            if not torch.isfinite(cast).all():
                if not torch.isfinite(tensor).all():
                    raise CheckpointError(
                        f"{key} has NaN or infinity among its values: expected finite numbers. "
                        "Download the file again."
                    )
                cast = tensor.float()
                log.warning("%s has values outside the range of fp16 and stays fp32", key)
            tensor = cast
        result[key] = tensor.contiguous()
    seen: set[int] = set()
    for key, tensor in result.items():
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            result[key] = tensor.clone()
        seen.add(storage.data_ptr())
    return result


def _remove_leftovers(target: Path) -> None:
    """Remove the files of a killed run. (A running one that loses its file so fails cleanly.)"""
    for partial in target.parent.glob(f".{target.name}.*.partial"):
        log.info("removing  %s, left by a run that was stopped", partial)
        partial.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code: 0 all there, 1 parts missing or failed, 2 misuse."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    try:
        outcomes = convert_release(options.release_folder, options.out_folder, options.dtype)
    except (InputError, OSError) as error:
        log.error("%s", error)
        return 2
    undone = [outcome for outcome in outcomes if outcome.status in ("missing", "failed")]
    log.info("%d of %d parts are in place.", len(outcomes) - len(undone), len(outcomes))
    for outcome in undone:
        log.error("%s %s: %s", outcome.status, outcome.part.kind.value, outcome.detail)
    return 1 if undone else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m uav_core.convert",
        description="Converts the Upscale-A-Video release (PyTorch files) to safetensors that "
        "ComfyUI finds. Can be stopped and started again; finished parts are skipped.",
        epilog="The weights remain under their S-Lab License 1.0: non-commercial use only.",
    )
    parser.add_argument(
        "release_folder",
        type=Path,
        metavar="RELEASE_FOLDER",
        help="the folder that contains unet/, vae/, propagator/ and text_encoder/ (or the one that "
        "contains pretrained_models/upscale_a_video/)",
    )
    parser.add_argument(
        "out_folder",
        type=Path,
        metavar="OUT_FOLDER",
        help="ComfyUI's models folder; files go to its diffusion_models/, vae/, optical_flow/ "
        "and text_encoders/",
    )
    parser.add_argument(
        "--dtype",
        choices=("fp16", "fp32"),
        default="fp16",
        help="precision of the U-Net and the text encoder (default: %(default)s). The VAEs and the "
        "flow model always stay fp32, so that they can be run exactly",
    )
    return parser
