"""The shipped workflows on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from clips import read_clip
from graphs import upscale_with_files

from .inside import BY_HAND
from .items import CheckFailedError, Item, Values, check_at_most
from .place import Place
from .served import DISTANCE, check_size, distance, result_of, server_of, small_clip, workflow

NAMES = {"upscale_video": 4, "long_video": 4, "low_vram": 4, "single_image": 2}
"""Workflows, with the estimated seconds of each on a GPU."""
TIMEOUT = 600
SAID = "DynamicVRAM support detected and enabled"


def items(place: Place, *options: str) -> Iterator[Item]:
    """Items with the included weights, then with generated ones in place of the authors'."""
    yield Item("the server starts", partial(start, place, options), 15)
    for name, estimate in NAMES.items():
        yield Item(name, partial(run, place, options, name), estimate)
    yield Item("upscale_video, generated weights", partial(run_files, place, options), 7)


def start(place: Place, options: tuple[str, ...]) -> Values:
    """Start the server and report whether DynamicVRAM is on."""
    server = server_of(place, options)
    on = SAID in server.log_text()
    if on and options:
        raise CheckFailedError(f"DynamicVRAM is on in spite of {' '.join(options)}")
    state = BY_HAND if place.pretends_dynamic(options) else "on" if on else "off"
    return {"DynamicVRAM": state, "device": server.stats()["devices"][0]["name"]}


def run(place: Place, options: tuple[str, ...], name: str) -> Values:
    """Run one workflow; its result must be an enlargement of its source."""
    server, clip = server_of(place, options), small_clip(place)
    source = read_clip(clip).pixels[: 1 if name == "single_image" else None]
    result = result_of(server, workflow(place, server, name, clip), TIMEOUT)
    check_size(source, result)
    return check_at_most("levels from the source", distance(source, result), DISTANCE)


def run_files(place: Place, options: tuple[str, ...]) -> Values:
    """Run with generated weight files, of the released size on a GPU; only sizes are checked."""
    place.weights.lay_authors()
    server, clip = server_of(place, options), small_clip(place)
    result = result_of(server, upscale_with_files(server, clip), TIMEOUT)
    check_size(read_clip(clip).pixels, result)
    return {"frames": len(result)}
