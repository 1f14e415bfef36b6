"""A headless browser for ComfyUI's page, with a font for Chinese."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.env.layout import DEV, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FONTS = "zhplot"
"""A package with Noto Sans SC (OFL); its code is not used."""
# Disables everything that would use the network or a display.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


@contextmanager
def browser(playwright: Any) -> Iterator[Browser]:
    """Context with the browser that ``find_chromium`` finds."""
    launched = playwright.chromium.launch(
        executable_path=find_chromium(), args=FLAGS, env={**os.environ, **with_fonts()}
    )
    try:
        yield launched
    finally:
        launched.close()


def with_fonts() -> dict[str, str]:
    """Environment variables that add the package's fonts to the system's, by fontconfig."""
    package = importlib.util.find_spec(FONTS)
    if package is None or package.origin is None:
        return {}
    DEV.mkdir(exist_ok=True)
    settings = DEV / "fonts.conf"
    settings.write_text(
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>'
        '<include ignore_missing="yes">/etc/fonts/fonts.conf</include>'
        f"<dir>{Path(package.origin).parent / 'fonts'}</dir>"
        f"<cachedir>{DEV / 'fonts'}</cachedir></fontconfig>"
    )
    return {"FONTCONFIG_FILE": str(settings)}
