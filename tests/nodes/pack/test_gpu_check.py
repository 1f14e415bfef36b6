"""The release check for a card, on a CPU: the same phases with tiny networks."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from scripts.env.layout import ROOT, comfyui_path, default_version
from scripts.gpu_checks import worker
from scripts.gpu_checks.inside import BY_HAND
from scripts.gpu_checks.items import CheckFailedError, Item, NotPossibleError
from scripts.gpu_checks.report import FAIL, PASS, SKIPPED, Report, Result
from scripts.gpu_checks.supervise import BUDGET, PHASES, Check
from scripts.gpu_checks.worker import run_phase

WAIT = 1800


def command(out: Path, *words: object, root: Path = ROOT) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, root / "scripts" / "gpu_check.py", "--out", out, *map(str, words)],
        env={**os.environ, "COMFYUI_PATH": str(comfyui_path(default_version()))},
        stderr=subprocess.DEVNULL,
    )


def read(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def statuses(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {
        name: {item["name"]: item["status"] for item in phase["items"]}
        for name, phase in report["phases"].items()
    }


def until(said: Any, process: subprocess.Popen[bytes], out: Path) -> dict[str, Any]:
    """The report, once it is as ``said`` tells."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if (out / "report.json").is_file() and said(report := read(out)):
            return report
        assert process.poll() is None, "the check ended too early"
        time.sleep(0.05)
    raise AssertionError("it did not come")


@pytest.mark.slow
def test_all_of_it_on_a_cpu(tmp_path):
    """Every phase, with tiny networks and real servers."""
    with command(tmp_path, "--budget", 3600) as process:
        code = process.wait(3600)
    report, text = read(tmp_path), (tmp_path / "report.md").read_text()
    found = statuses(report)
    failed = [i for p in report["phases"].values() for i in p["items"] if i["status"] == FAIL]
    assert (code, failed) == (0, []), (tmp_path / "worker.log").read_text()[-4000:]
    assert report["finished"]
    left_out = [
        (name, item["name"], item["message"])
        for name, phase in report["phases"].items()
        for item in phase["items"]
        if item["status"] == SKIPPED
    ]
    assert all(
        phase == "parity" and re.search("TF32|fp16", name) and "a CPU has no TF32" in message
        for phase, name, message in left_out
    ), left_out
    for phase, expected in EXPECTED.items():
        passed = [name for name, status in found[phase].items() if status == PASS]
        assert set(expected) <= set(passed), f"{phase}: {passed}"
    for phase, items in report["phases"].items():
        for item in items["items"]:
            assert f"| {item['name']} | {item['status']} |" in text, phase
    assert report["machine"]["torch"] and report["machine"]["comfyui"] != "unknown"
    assert f"{report['counts'][PASS]} PASS, 0 FAIL" in text
    assert not (tmp_path / "work" / "gpu_check").exists()
    assert {"server.log", "server-disable-dynamic-vram.log"} <= {p.name for p in tmp_path.iterdir()}
    dynamic = {n: report["phases"][n]["items"][0]["values"]["DynamicVRAM"] for n in STATES}
    assert dynamic == STATES


WORKFLOWS = ("upscale_video", "long_video", "low_vram", "single_image")
EXPECTED = {
    "loaders": (
        "U-Net, included, fp8_e4m3fn",
        "U-Net, upscale_a_video/unet_video.bin, bf16",
        "VAE, upscale_a_video/vae_3d.bin, fp32",
        "text encoder, text_encoders/uav_text_encoder.safetensors",
        "flow, upscale_a_video/raft-things.pth",
    ),
    "parity": ("whole runs, golden data, fp32", "VAE, released size, to a CPU, bf16"),
    "speed": (
        "U-Net pass, 2 x 8 frames, fp16",
        "decode, 3 frames, default precision",
        "flow, RAFT",
        "flow, built-in",
        "whole run, included weights",
        "whole run, released size, put together",
    ),
    "workflows": (*WORKFLOWS, "upscale_video, generated weights"),
    "life": ("free gives the memory back", "five queued runs do not grow", "cancel in the middle"),
    "memory": ("released size weights, no card to fill", "included weights, no card to fill"),
    "plain": (*WORKFLOWS, "upscale_video, generated weights"),
    "compile": ("few layers of every kind",),
}
STATES = {"loaders": BY_HAND, "workflows": BY_HAND, "plain": "off"}


@pytest.mark.slow
def test_a_damaged_file_fails_its_items_alone(tmp_path):
    pack = tmp_path / "pack"
    left_out = shutil.ignore_patterns(".git", ".dev", "output", "__pycache__", "docs", "web")
    shutil.copytree(ROOT, pack, ignore=left_out)
    weights = pack / "weights" / "uav_small_unet.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with command(tmp_path, "--budget", WAIT, "--phases", "parity", root=pack) as process:
        assert process.wait(2 * WAIT) == 1
    found = statuses(read(tmp_path))["parity"]
    failed = {name for name, status in found.items() if status == FAIL}
    assert failed == {f"U-Net, included weights, to a CPU, {p}" for p in ("fp32", "bf16")}
    assert found["VAE, included weights, to a CPU, fp32"] == PASS
    assert found["U-Net, golden data, fp32"] == PASS
    assert "| FAIL | " in (tmp_path / "report.md").read_text()


def test_a_budget_too_small_passes_nothing(tmp_path):
    with command(tmp_path, "--budget", 5) as process:
        assert process.wait(WAIT) == 2
    report = read(tmp_path)
    assert report["counts"] == {PASS: 0, FAIL: 0, SKIPPED: len(PHASES)}
    assert "SKIPPED: no time left." in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_killed_in_the_middle_it_keeps_what_it_found(tmp_path):
    def passed(report: dict[str, Any]) -> int:
        return report["counts"][PASS]

    def at_a_long_item(report: dict[str, Any]) -> bool:
        """At one of seconds: between two items there is nothing to fail."""
        return any(
            i["name"].startswith("whole runs") and "under way" in (i["message"] or "")
            for i in report["phases"]["parity"]["items"]
        )

    with command(tmp_path, "--budget", WAIT, "--phases", "parity") as process:
        until(at_a_long_item, process, tmp_path)
        main = psutil.Process(process.pid)
        # A process that dies fails the item it was at; another goes on with the next.
        for child in main.children(recursive=True):
            child.kill()
        report = until(lambda report: report["counts"][FAIL] == 1, process, tmp_path)
        before = passed(report)
        until(lambda report: passed(report) > before, process, tmp_path)
        children = main.children(recursive=True)
        process.kill()
    report, text = read(tmp_path), (tmp_path / "report.md").read_text()
    assert not report["finished"] and "had not ended when this was written" in text
    (failed,) = (i for i in report["phases"]["parity"]["items"] if i["status"] == FAIL)
    assert "its process ended with code" in failed["message"]
    done = [i for i in report["phases"]["parity"]["items"] if i["status"] == PASS]
    assert len(done) > before and all(i["values"] and i["seconds"] for i in done)
    assert SKIPPED in statuses(report)["parity"].values()
    assert all(f"| {item['name']} | {PASS} |" in text for item in done)
    _, alive = psutil.wait_procs(children, 60)
    assert not alive, "nobody is left running"


class Sent(list):
    """Takes what a process would send."""

    def send(self, event: str, **values: Any) -> None:
        if event == "result":
            self.append(Result(**values["result"]))


def run(items: list[Item], deadline: float, done: tuple[str, ...] = ()) -> list[Result]:
    sent: Any = Sent()
    place = SimpleNamespace(tiny=False, tidy=lambda: None)
    run_phase(sent, {"name": "test", "deadline": deadline, "done": done}, items, place)
    return sent


def test_the_clock_is_asked_before_every_item():
    def slow() -> dict[str, int]:
        time.sleep(1.1)
        return {"slept": 1}

    items = [
        Item("long", lambda: {}, seconds=30),
        Item("first", slow, seconds=1),
        Item("second", lambda: {}, seconds=1),
    ]
    results = run(items, time.time() + 2)
    assert [(r.name, r.status) for r in results] == [
        ("long", SKIPPED),
        ("first", PASS),
        ("second", SKIPPED),
    ]
    assert "takes about 30 s" in results[0].message and "no time left" in results[2].message
    (only,) = run(items[2:], time.time() + 60)
    assert only.status == PASS
    assert not run(items[1:], time.time() + 60, done=("first", "second"))


STARTS = {True: 12.0, False: 5.0}
"""Seconds until a process comes to its first item, with ComfyUI in it and without."""
BEYOND = {
    "loaders": {
        *(
            f"U-Net, upscale_a_video/unet_video.bin, {name}"
            for name in ("fp32", "fp16", "bf16", "fp8_e4m3fn", "fp8_e5m2")
        ),
        *(f"VAE, upscale_a_video/vae_video.bin, {name}" for name in ("fp16", "bf16")),
        *(
            f"VAE, upscale_a_video/vae_3d.bin, {name}"
            for name in ("default", "fp32", "fp16", "bf16")
        ),
    },
    "speed": {
        "flow, built-in",
        *(f"whole run, released size, {name}" for name in ("2 steps", "all steps")),
    },
    "memory": {
        f"{name} weights, {left} GiB left"
        for name in ("released size", "included")
        for left in (6, 16)
    },
    "compile": {"included weights", "released size"},
}
"""What docs/gpu_check.md says to be left out of the usual budget on an H100."""


@pytest.mark.parametrize(("budget", "beyond"), [(BUDGET, BEYOND), (900.0, {})])
def test_what_a_budget_is_enough_for(pack, monkeypatch, tmp_path, budget, beyond):
    """By the items' own estimates, as if they took just as long on a card."""
    check = Check(ROOT, tmp_path, tmp_path, budget, [phase.name for phase in PHASES])
    monkeypatch.syspath_prepend(ROOT / "tests" / "server")
    now = check.report.started
    clock = SimpleNamespace(time=lambda: now, monotonic=lambda: now)
    monkeypatch.setattr(worker, "time", clock)
    weights = SimpleNamespace(path=str)
    place = SimpleNamespace(tiny=False, pack=pack, weights=weights, tidy=lambda: None)

    def taking(item: Item) -> Item:
        def run() -> dict[str, int]:
            nonlocal now
            now += item.seconds
            return {}

        return replace(item, run=run)

    skipped, process = {}, ""
    for phase in check.phases:
        if phase.process != process:
            now += STARTS[phase.inside]
            process = phase.process
        module: Any = import_module(f"scripts.gpu_checks.{phase.module or phase.name}")
        items = [taking(item) for item in module.items(place, *phase.options)]
        sent: Any = Sent()
        order = {"name": phase.name, "deadline": check.deadlines[phase.name], "done": ()}
        run_phase(sent, order, items, place)
        skipped[phase.name] = {result.name for result in sent if result.status == SKIPPED}
        assert len(sent) == len(items)
    assert {name: found for name, found in skipped.items() if found} == beyond
    assert now <= check.end


def test_how_an_item_ends():
    def raises(error: Exception) -> Any:
        def item() -> dict[str, int]:
            raise error

        return item

    items = [
        Item("cannot", raises(NotPossibleError("no such card"))),
        Item("checked", raises(CheckFailedError("difference 2, expected at most 1"))),
        Item("broken", raises(RuntimeError("CUDA error\nand more"))),
    ]
    cannot, checked, broken = run(items, time.time() + 60)
    assert (cannot.status, cannot.message) == (SKIPPED, "no such card")
    assert (checked.status, checked.message) == (FAIL, "difference 2, expected at most 1")
    assert (broken.status, broken.message) == (FAIL, "RuntimeError: CUDA error")
    assert "and more" in broken.traceback


def test_the_report_is_whole_at_any_time(tmp_path):
    report = Report(tmp_path, {"budget_seconds": 1}, {"one": "First.", "two": "Second."})
    report.write()
    assert read(tmp_path)["counts"] == {PASS: 0, FAIL: 0, SKIPPED: 2}
    report.plan("one", ["a|b", "c"])
    report.begin("one", "a|b")
    report.end("one", Result("a|b", PASS, 1.0, "", {"seconds": 0.12345}))
    report.leave("one", "no time left")
    text = (tmp_path / "report.md").read_text()
    assert "| a/b | PASS | 1.0 | seconds 0.123 |" in text
    assert "| c | SKIPPED |  | no time left |" in text and "SKIPPED: not reached." in text
    assert read(tmp_path)["phases"]["one"]["items"][0]["values"] == {"seconds": 0.12345}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]
