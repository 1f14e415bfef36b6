"""Tells what a weight file is from its header: reads no tensor and runs nothing in the file.

The header of safetensors is the JSON at the start. In PyTorch files it is the pickle that names
the tensors, whose instructions are only listed.
"""

from __future__ import annotations

import json
import math
import os
import pickletools
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import BinaryIO, NamedTuple

from ..errors import UnreadableCheckpointError
from .checkpoints import Kind, canonical_name, detect, without_prefixes
from .files import AGAIN, DAMAGED_ZIP, MOST_HEADER, stamp

# The pickled number that begins PyTorch's older format.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# Stable Diffusion 2's OpenCLIP-H; the release leaves out the last layer, whose output is not used.
TEXT_ENCODER_LAYERS = (frozenset(range(23)), frozenset(range(24)))
_LAYER = re.compile(r"text_model\.encoder\.layers\.(\d+)\.")


class Shape(NamedTuple):
    """A tensor as a header describes it."""

    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)


@dataclass(frozen=True)
class WeightHeader:
    """What a file's header says.

    ``kind`` is None if it cannot be told, and ``fault`` then says why; a file that is recognised
    but not whole has both. ``layers`` are those of a text encoder. ``parameters`` is None if the
    header has no shapes.
    """

    kind: Kind | None
    fault: str = ""
    layers: frozenset[int] = frozenset()
    parameters: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)


# A part of a tensor's name for each of our kinds, in every layout.
_TELLTALES = re.compile(
    rb"class_embedding\.weight|coder\.conv_in\.weight|encoder\.layers\.0\.self_attn\.q_proj"
    rb"|update_block\.gru|mask_predictor\.conv|null_text_embedding"
)
# Bytes searched of a pickle: its names are at the beginning, and the U-Net's take a sixth of this.
_GLANCE = 1 << 20


def read_header(path: str | os.PathLike[str]) -> WeightHeader:
    """The header of a weight file, read again only if its size or modification time changed."""
    path = os.path.abspath(path)
    try:
        return _read(path, *stamp(path))
    except OSError as error:
        return WeightHeader(None, f"it cannot be read ({error.strerror or error})")


def may_be_ours(path: str | os.PathLike[str]) -> bool:
    """Whether the header is worth reading: a search for our tensor names, which is much faster.

    True as well if the file cannot be read.
    """
    path = os.path.abspath(path)
    try:
        return _glance(path, *stamp(path))
    except OSError:
        return True


@cache
def _glance(path: str, _size: int, _changed: int) -> bool:
    with open(path, "rb") as file:
        head = file.read(9)
        length = int.from_bytes(head[:8], "little") if head[8:] == b"{" else _GLANCE
        return _TELLTALES.search(file.read(min(length, MOST_HEADER))) is not None


def fits(header: WeightHeader, kinds: Collection[Kind]) -> bool:
    """Whether a file is of one of ``kinds``; a text encoder must also have layers we can use."""
    if header.kind is Kind.TEXT_ENCODER and header.layers not in TEXT_ENCODER_LAYERS:
        return False
    return header.kind in kinds


@cache
def _read(path: str, size: int, _changed: int) -> WeightHeader:
    metadata: dict[str, str] = {}
    fault = ""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
            file.seek(0)
            if head.startswith(b"PK\x03\x04"):
                entries = _zip_names(file)
            elif head.startswith(_LEGACY):
                entries = _legacy_names(file)
            elif head[8:9] == b"{":
                entries, metadata, fault = _safetensors(file, size)
            else:
                return WeightHeader(None, "it is neither a safetensors nor a PyTorch file")
    except (OSError, UnreadableCheckpointError) as error:
        return WeightHeader(None, str(error))
    names = {canonical_name(name): value for name, value in without_prefixes(entries).items()}
    shapes = [value.shape for value in names.values() if value is not None]
    return WeightHeader(
        detect(names),
        fault,
        frozenset(int(m.group(1)) for name in names if (m := _LAYER.match(name))),
        sum(map(math.prod, shapes)) if len(shapes) == len(names) else None,
        metadata,
    )


def _safetensors(file: BinaryIO, size: int) -> tuple[dict[str, Shape | None], dict[str, str], str]:
    """Tensors, metadata, and the fault if the file's length is wrong (else "")."""
    length = int.from_bytes(file.read(8), "little")
    damaged = UnreadableCheckpointError(f"its safetensors header is damaged or cut off. {AGAIN}")
    if not 2 <= length <= min(MOST_HEADER, size - 8):
        raise damaged
    try:
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", None) or {}
        entries: dict[str, Shape | None] = {
            name: Shape(tuple(int(side) for side in entry["shape"]))
            for name, entry in header.items()
        }
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise damaged from None
    whole = 8 + length + end
    fault = "" if size == whole else f"it has {size} bytes, but its header says {whole}"
    return entries, metadata if isinstance(metadata, dict) else {}, fault


def _zip_names(file: BinaryIO) -> dict[str, Shape | None]:
    try:
        with zipfile.ZipFile(file) as archive:
            inside = [i for i in archive.infolist() if i.filename.endswith("/data.pkl")]
            plain = bool(inside) and inside[0].compress_type == zipfile.ZIP_STORED
            if not plain or inside[0].file_size > MOST_HEADER:
                raise UnreadableCheckpointError(
                    "it is a zip archive, but not one written by PyTorch"
                )
            with archive.open(inside[0]) as pickled:
                return dict.fromkeys(_texts(pickled.read()))
    except DAMAGED_ZIP as error:
        raise UnreadableCheckpointError(
            "it begins as a PyTorch file but is cut off or damaged "
            f"({str(error) or type(error).__name__}). {AGAIN}"
        ) from error


def _legacy_names(file: BinaryIO) -> dict[str, Shape | None]:
    """Names in the fourth pickle, which follows a number, a version and the system."""
    try:
        for _ in range(3):
            for _instruction in pickletools.genops(file):
                pass
        return dict.fromkeys(_texts(file))
    except (ValueError, MemoryError, OverflowError) as error:
        raise UnreadableCheckpointError(f"it is cut off or damaged ({error}). {AGAIN}") from error


def _texts(pickled: bytes | BinaryIO) -> Iterator[str]:
    """The names in a pickle: its strings without spaces, except numbers, which name storages."""
    for _, argument, _ in pickletools.genops(pickled):
        if isinstance(argument, str) and " " not in argument and not argument.isdigit():
            yield argument
