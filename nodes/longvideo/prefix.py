"""Replaces the tokens of a ``filename_prefix`` as ComfyUI's 'Save Video' does."""

from __future__ import annotations

import re
import time

import folder_paths

from ...uav_core.errors import InputError

# Fields of a date, as ComfyUI's page knows them: doubled letters give two digits.
_DATE = re.compile("dd?|MM?|hh?|mm?|ss?|yyyy|yy")
_FIELDS = {"d": "tm_mday", "M": "tm_mon", "h": "tm_hour", "m": "tm_min", "s": "tm_sec"}


def resolved(prefix: str, width: int, height: int) -> str:
    """``prefix`` with all its tokens replaced.

    ComfyUI replaces %width%, %height%, %year%, %month%, %day%, %hour%, %minute% and %second%. Its
    page replaces %date:yyyy-MM-dd% and %Node.widget% before it sends a prompt. Dates are also
    replaced here, for prompts that do not come from the page.

    Raises InputError for a %Node.widget% that is still there.
    """
    text = re.sub("%date:([^%]*)%", lambda found: _date(found[1]), prefix)
    if (found := re.search(r"%([^%./\\]+[.][^%./\\]+)%", text)) is not None:
        raise InputError(
            f"The filename_prefix '{prefix}' refers to the value '{found[1]}' of a node, which "
            "was not found. Check the names of the node and the value. A prompt that is not sent "
            "by ComfyUI's page must contain the value itself instead."
        )
    return "/".join(_by_comfyui(part, width, height) for part in text.replace("\\", "/").split("/"))


def _by_comfyui(name: str, width: int, height: int) -> str:
    if "%" not in name:
        return name
    # Called for each part: for a whole path it would create the folders before they are checked.
    return folder_paths.get_save_image_path(
        name, folder_paths.get_output_directory(), width, height
    )[4]


def _date(form: str) -> str:
    now = time.localtime()

    def field(found: re.Match[str]) -> str:
        letters = found[0]
        if letters[0] == "y":
            return f"{now.tm_year}"[-len(letters) :]
        return f"{getattr(now, _FIELDS[letters[0]]):0{len(letters)}}"

    return _DATE.sub(field, form)
