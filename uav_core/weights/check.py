"""Tells which weight files are there, what they are, and where to get what is missing.

python -m uav_core.weights MODELS_FOLDER [MODELS_FOLDER...] [--quick] [--convert [RELEASE]]
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError, UpscaleAVideoError
from ..files import human_bytes
from .checkpoints import Kind
from .convert import LICENSE, convert_release
from .included import REPAIR
from .survey import OWN, Survey, WeightFile, model_folders, survey

log = logging.getLogger(__name__)

HOME = "https://github.com/sczhou/Upscale-A-Video"


def table(found: Survey) -> str:
    """The files found as lines of text, with advice on what is missing."""
    return "\n".join([*_release(found), "", *_shipped(found), *_others(found), "", *verdict(found)])


def usable(found: Survey) -> bool:
    """Whether the authors' U-Net, text encoder and one of their VAEs are there and whole."""
    return (
        found.has(Kind.UNET)
        and found.has(Kind.TEXT_ENCODER)
        and found.has(Kind.VAE_VIDEO, Kind.VAE_3D)
    )


def verdict(found: Survey) -> Iterator[str]:
    """Lines that say which weights can be used now, and how to get the others."""
    if not any(file.fault for file in found.included):
        yield "The included weights are ready to use."
    if usable(found):
        yield "The authors' weights are ready to use."
        if not found.has(Kind.RAFT):
            yield "Without their flow model use the built-in one."
        return
    yield (
        "The authors' weights cannot be used yet: they need complete files of the U-Net, the "
        "text encoder and one of the two VAEs."
    )
    yield f"Get what is missing from the folder that {HOME} links under 'Download Models',"
    yield f"and put it, with its sub-folders, into models/{OWN}. Their licence is {LICENSE}."


def _release(found: Survey) -> Iterator[str]:
    yield f"The authors' release, {LICENSE}"
    for part, files in found.parts.items():
        released = part.sources[0]
        yield f"{released}, {part.kind.label}"
        if not files:
            yield f"    missing: put it at models/{OWN}/{released},"
            yield f"    or the converted file at models/{part.target}"
        for file in files:
            yield from _file(file)


def _file(file: WeightFile) -> Iterator[str]:
    yield f"    {_state(file)}, {human_bytes(file.bytes)}: {file.path}"
    if file.fault:
        yield f"        {file.fault}"
        return
    count, source = file.header.parameters, file.header.metadata.get("uav.source")
    said = [f"{count / 1e6:.1f} M parameters"] if count else []
    said += [f"converted from {source}"] if source else []
    if said:
        yield f"        {', '.join(said)}"
    if file.sha256:
        yield f"        SHA-256 {file.sha256}"


def _state(file: WeightFile) -> str:
    return "damaged" if file.fault else "whole"


def _shipped(found: Survey) -> Iterator[str]:
    yield "Included with the pack, MIT licence"
    for file in found.included:
        yield f"    {_state(file)}, {human_bytes(file.bytes)}: {file.path.name}"
        if file.fault:
            yield f"        {file.fault}. {REPAIR}"


def _others(found: Survey) -> Iterator[str]:
    if found.others:
        yield ""
        yield f"In models/{OWN}, but not of the release"
    for file in found.others:
        kind = file.header.kind
        yield f"    {kind.label if kind else file.fault}, {human_bytes(file.bytes)}: {file.path}"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns 0 if the authors' weights are usable, 1 if not, 2 on misuse."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger(__package__).setLevel(logging.INFO)
    try:
        for folder in options.models:
            if not folder.is_dir():
                raise InputError(
                    f"{folder} is not a folder: expected ComfyUI's models folder, the one with "
                    "diffusion_models/ and vae/ in it."
                )
        failed = False
        if options.convert is not None:
            release = options.convert or options.models[0]
            outcomes = convert_release(release, options.models[0], options.dtype)
            failed = any(outcome.status == "failed" for outcome in outcomes)
        found = survey(model_folders(*options.models), checksums=not options.quick)
    except (UpscaleAVideoError, OSError) as error:
        log.error("%s", error)
        return 2
    sys.stdout.write(table(found) + "\n")
    return 0 if usable(found) and not failed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m uav_core.weights",
        description="Shows which weight files exist, what they are, whether they are complete, and "
        "where to get the missing ones.",
        epilog=f"The authors' weights are under the {LICENSE}.",
    )
    parser.add_argument(
        "models",
        type=Path,
        nargs="+",
        metavar="MODELS_FOLDER",
        help="ComfyUI's models folder; add more folders as in extra_model_paths.yaml",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="read only the headers: no checksums, no file is read completely",
    )
    parser.add_argument(
        "--convert",
        nargs="?",
        const="",
        metavar="RELEASE_FOLDER",
        help="first convert the release in this folder (default: the models folder itself) to "
        "safetensors in the first MODELS_FOLDER",
    )
    parser.add_argument(
        "--dtype",
        choices=("fp16", "fp32"),
        default="fp16",
        help="precision of the files that --convert writes, as in uav_core.convert (default: "
        "%(default)s)",
    )
    return parser
