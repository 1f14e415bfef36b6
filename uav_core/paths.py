"""Names and paths that are safe on any system."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .errors import UnsafePathError

TMP = ".tmp"
"""The extension of a file's name while it is written."""

MOST_NAME_BYTES = 255
MOST_OUTPUT_BYTES = MOST_NAME_BYTES - len(TMP)
"""The most bytes of a video's file name, which leave room for an ending while it is written."""

# Windows opens a device for these, whatever the case and the extension.
_DEVICE = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\..*)?",
    re.IGNORECASE | re.DOTALL,
)


def plain_name(name: str) -> str:
    """``name`` unchanged, if it is the name of one file or folder on every system.

    Raises UnsafePathError for separators, "." and "..", control characters, ":" (drives and
    streams of Windows), its device names, a dot or space at the end, and over 255 bytes.
    """
    size = len(name.encode("utf-8", "surrogatepass"))
    if name in ("", ".", ".."):
        problem = "is not a file name"
    elif re.search(r"[/\\]", name):
        problem = "has a separator"
    elif re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name):
        problem = "has a control character"
    elif ":" in name:
        problem = "has a ':', which Windows uses for drives and streams"
    elif name[-1] in ". ":
        problem = "ends in a dot or space, which Windows removes"
    elif _DEVICE.fullmatch(name):
        problem = "is a reserved device name on Windows"
    elif size > MOST_NAME_BYTES:
        problem = f"has {size} bytes, more than {MOST_NAME_BYTES}"
    else:
        return name
    raise UnsafePathError(f"The name {name!r:.80} {problem}. Use a plain file name.")


def output_name(name: str) -> str:
    """``name`` unchanged, if a video can be written under it on every system.

    Raises UnsafePathError as ``plain_name`` does, and for names that leave no room for the
    extension that a file has while it is written.
    """
    size = len(plain_name(name).encode())
    if size > MOST_OUTPUT_BYTES:
        raise UnsafePathError(
            f"The name {name!r:.80} has {size} bytes, more than {MOST_OUTPUT_BYTES}. Use a "
            "shorter name."
        )
    return name


def inside(root: str | os.PathLike[str], *parts: str) -> Path:
    """The resolved path of ``parts`` in the folder ``root``; nothing of it needs to exist.

    Each part may have several names, separated by "/" or "\\". ``root`` itself may be a link.
    Raises UnsafePathError for names that ``plain_name`` refuses, for absolute parts, and if a link
    leads out of ``root``.
    """
    names = []
    for part in parts:
        if re.match(r"[/\\]", part):
            raise UnsafePathError(f"{part!r:.80} is absolute. Use a path inside {root}.")
        names += [plain_name(name) for name in re.split(r"[/\\]", part)]
    base = os.path.realpath(root)
    path = os.path.realpath(os.path.join(base, *names))
    if not Path(path).is_relative_to(base):
        raise UnsafePathError(
            f"{'/'.join(names)!r:.80} leads out of the folder {base} to {path}. Use a path inside "
            "this folder."
        )
    return Path(path)
