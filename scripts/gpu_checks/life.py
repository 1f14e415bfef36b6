"""Checks of a server: it frees memory, does not grow from run to run, and stops on cancel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import psutil
from graphs import Graph

from scripts.server.comfy_server import ComfyServer, PromptInterrupted

from .items import CheckFailedError, Item, Values, check_at_most
from .place import Place
from .served import least_clip, small_clip, workflow

SAMPLER = "UpscaleAVideoSegmentSampler"
TIMEOUT = 600
RUNS = 5
GPU_GROWTH, HOST_GROWTH = 128.0, 64.0
"""MiB of growth allowed, as libraries load kernels late and allocators round sizes up."""
LOADED = "Requested to load UpscaleAVideoModel"
MIB = 2**20


def items(place: Place) -> Iterator[Item]:
    """The items; they use the server of the phase *workflows* if that runs too."""
    yield Item("free gives the memory back", partial(free, place), 7)
    yield Item("five queued runs do not grow", partial(queued, place), 8)
    yield Item("cancel in the middle", partial(cancel, place), 3)


def graph_of(place: Place, server: ComfyServer) -> Graph:
    """The shipped workflow with settings for a short run."""
    clip = least_clip(place) if place.tiny else small_clip(place)
    graph = workflow(place, server, "upscale_video", clip)
    graph.set("UpscaleAVideoSettings", speed="custom", steps=2, propagation_steps="last 1")
    return graph.set("UpscaleAVideoPropagation", flow_iterations=2)


def run(server: ComfyServer, graph: Graph, seed: int) -> None:
    """Run with a new seed, so that no cached result is used."""
    server.run(graph.set(SAMPLER, seed=seed).prompt, TIMEOUT)


def used(server: ComfyServer) -> tuple[float, float]:
    """MiB of GPU memory in use by all, and of RAM by the server, once the values are stable."""
    assert server.process
    process, before = psutil.Process(server.process.pid), (-1.0, -1.0)
    for _ in range(40):
        device = server.stats()["devices"][0]
        card = 0 if device["type"] == "cpu" else device["vram_total"] - device["vram_free"]
        now = card / MIB, process.memory_info().rss / MIB
        if max(abs(a - b) for a, b in zip(now, before, strict=True)) < 1:
            break
        before = now
        time.sleep(0.25)
    return now


def free(place: Place) -> Values:
    """Memory after unloading must be the same after each run, and the model loaded again."""
    server = place.server()
    graph, left = graph_of(place, server), []
    for seed in (1, 2, 3):
        loads = server.log_text().count(LOADED)
        run(server, graph, seed)
        if server.log_text().count(LOADED) == loads:
            raise CheckFailedError("the model was still loaded after it should have been unloaded")
        held = used(server)
        server.free()
        left.append(used(server))
    return {"card held MiB": held[0], **growth(left[1], left[2])}


def queued(place: Place) -> Values:
    """Queue five prompts at once, after two runs that fill caches, and check growth."""
    server = place.server()
    graph = graph_of(place, server)
    for seed in (11, 12):
        run(server, graph, seed)
    before = used(server)
    prompts = [server.queue(graph.set(SAMPLER, seed=20 + i).prompt) for i in range(RUNS)]
    for prompt in prompts:
        server.wait(prompt, TIMEOUT)
    return growth(before, used(server))


def growth(before: tuple[float, float], after: tuple[float, float]) -> Values:
    """Memory after the runs and its growth; CheckFailedError above the bounds."""
    values = {}
    for name, old, new, most in zip(
        ("card", "host"), before, after, (GPU_GROWTH, HOST_GROWTH), strict=True
    ):
        check_at_most(f"{name} grew by MiB", new - old, most)
        values |= {f"{name} MiB": new, f"{name} grew by MiB": new - old}
    return values


def cancel(place: Place) -> Values:
    """Cancel in the middle of sampling; the next run must not be affected."""
    server = place.server()
    graph = graph_of(place, server)
    whole = graph.prompt
    settings = {"speed": "custom", "steps": 500, "propagation_steps": ""}
    long = graph_of(place, server).set("UpscaleAVideoSettings", **settings)
    prompt = server.queue(long.set(SAMPLER, seed=31).prompt)
    node, deadline = long.id(SAMPLER), time.monotonic() + TIMEOUT
    while steps_done(server, prompt, node) < 3:
        if server.events.all("execution_error", prompt) or time.monotonic() > deadline:
            raise CheckFailedError("the run to be cancelled did not reach its third segment")
        time.sleep(0.02)
    began = time.monotonic()
    server.interrupt()
    try:
        server.wait(prompt, TIMEOUT)
    except PromptInterrupted:
        seconds = time.monotonic() - began
    else:
        raise CheckFailedError("the run was not cancelled and ran to its end")
    server.run(whole, TIMEOUT)
    return {"seconds until it stopped": seconds}


def steps_done(server: ComfyServer, prompt: str, node: str) -> int:
    """Number of segments that a run has reported as done."""
    events = server.events.all("progress", prompt)
    return max((e.data["value"] for e in events if str(e.data["node"]) == node), default=0)
