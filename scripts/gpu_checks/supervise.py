"""The main process: it keeps the time and the report, and never uses the device."""

from __future__ import annotations

import json
import logging
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import psutil

from .report import FAIL, PASS, Report, Result

ENTRY = Path(__file__).resolve().parents[1] / "gpu_check.py"
BUDGET = 300.0
"""Default time of the whole check, in seconds."""
LEAST_SECONDS = 10
"""Least time to start a process; with less it would not reach its first item."""
STOPPING_SECONDS = 10
"""Time reserved at the end of the budget to stop a server."""

log = logging.getLogger("gpu_check")


@dataclass(frozen=True)
class Phase:
    """A module of items, and the time reserved for it."""

    name: str
    about: str
    seconds: float
    """Time on a current GPU with the start of its process; scaled with the budget."""
    process: str
    """Name of its process; neighbouring phases with the same name share one."""
    inside: bool = False
    """Whether it needs ComfyUI inside its process."""
    module: str = ""
    """Name of the module, if it differs from the name of the phase."""
    options: tuple[str, ...] = ()
    """Server options for its items."""


# The most important phases first, but in an order that starts few processes and servers. Unused
# time goes to the next phase. The sum fits the default budget.
PHASES = (
    Phase(
        "loaders",
        "Every loader in every precision with included and generated weights, under DynamicVRAM, "
        "each followed by a small run that is compared with the core network in fp32.",
        65,
        "check",
        inside=True,
    ),
    Phase(
        "parity",
        "The networks on the device to the golden data of the tests, and to a CPU in fp32.",
        37,
        "check",
        inside=True,
    ),
    Phase(
        "speed",
        "Times and peak memory of parts and of whole runs.",
        34,
        "check",
        inside=True,
    ),
    Phase(
        "workflows",
        "The shipped workflows on a server with ComfyUI's defaults.",
        42,
        "server",
    ),
    Phase(
        "life",
        "The same server: what it gives back when asked, five runs in a row, cancelling.",
        18,
        "server",
    ),
    Phase(
        "memory",
        "The same server: runs to 1280x720 while another process leaves so much of the card free.",
        30,
        "server",
    ),
    Phase(
        "plain",
        "The shipped workflows on a server without DynamicVRAM.",
        37,
        "server",
        module="workflows",
        options=("--disable-dynamic-vram",),
    ),
    Phase(
        "compile",
        "torch.compile, by ComfyUI's node TorchCompileModel.",
        25,
        "compile",
        inside=True,
    ),
)


class Check:
    """One run of the whole check."""

    def __init__(
        self, comfyui: Path, out: Path, work: Path, budget: float, names: Sequence[str]
    ) -> None:
        self.comfyui, self.out, self.work = comfyui, out, work
        self.phases = [phase for phase in PHASES if phase.name in names]
        self.end = time.time() + budget - min(STOPPING_SECONDS, budget / 20)
        options = {"budget_seconds": round(budget), "phases": " ".join(p.name for p in self.phases)}
        self.report = Report(out, options, {phase.name: phase.about for phase in self.phases})
        whole, used = sum(phase.seconds for phase in self.phases), 0.0
        self.deadlines: dict[str, float] = {}
        for phase in self.phases:
            used += phase.seconds
            start = self.report.started
            self.deadlines[phase.name] = start + (self.end - start) * used / whole

    def run(self) -> int:
        """Run all phases. Returns 0 if all went well, 1 for a failure, 2 if nothing was checked."""
        try:
            for _, group in groupby(self.phases, lambda phase: phase.process):
                self.run_group(list(group))
            self.report.finished = True
        finally:
            self.report.write()
        log.info("\n%s", self.report.to_markdown())
        if self.report.count(FAIL):
            return 1
        return 0 if self.report.count(PASS) else 2

    def run_group(self, group: Sequence[Phase]) -> None:
        """Run phases in one process; if it breaks off, continue in a new one."""
        while True:
            if self.end - time.time() < LEAST_SECONDS:
                self.leave(group, "no time left")
                return
            before = self.ended(group)
            process = Process(self, group)
            try:
                whole = process.watch()
            finally:
                process.stop()
            if whole:
                return
            if time.time() >= self.end:
                self.leave(group, "the budget was used up")
                return
            if self.ended(group) == before:
                # It did not reach an item, and a new process would not either.
                words = f"the process ended with code {process.code}: see worker.log"
                self.report.end(group[0].name, Result("start", FAIL, message=words))
                self.leave(group, "its process did not start")
                return

    def leave(self, group: Sequence[Phase], message: str) -> None:
        """Record why the remaining items of these phases are not run."""
        for phase in group:
            self.report.leave(phase.name, message)

    def ended(self, group: Sequence[Phase]) -> int:
        """Number of items of these phases that have ended."""
        return sum(len(self.report.done(phase.name)) for phase in group)

    def order(self, group: Sequence[Phase]) -> dict[str, Any]:
        """The order for a process, sent as JSON."""
        phases = [
            {
                "name": phase.name,
                "module": phase.module or phase.name,
                "options": phase.options,
                "deadline": self.deadlines[phase.name],
                "done": self.report.done(phase.name),
            }
            for phase in group
        ]
        folders = {"comfyui": self.comfyui, "out": self.out, "work": self.work}
        inside = any(phase.inside for phase in group)
        paths = {name: str(path) for name, path in folders.items()}
        return {**paths, "inside": inside, "phases": phases}


class Process:
    """A process that runs items, and its events."""

    def __init__(self, check: Check, group: Sequence[Phase]) -> None:
        self.check, self.report = check, check.report
        with (check.out / "worker.log").open("ab") as words:
            self.process = subprocess.Popen(
                [sys.executable, str(ENTRY), "--worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                text=True,
                encoding="utf-8",
            )
        assert self.process.stdin
        self.process.stdin.write(json.dumps(check.order(group)) + "\n")
        self.process.stdin.flush()
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.under_way: tuple[str, str, float, float] | None = None
        """Running item: its phase, name, start time, and limit in seconds."""
        self.report.write()

    @property
    def code(self) -> int | None:
        """The exit code, once it has ended."""
        return self.process.poll()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.events.put(json.loads(line))
        self.events.put(None)

    def watch(self) -> bool:
        """Record its events until it ends, hangs, or time is over. Returns whether it did all."""
        while True:
            until = self.check.end
            if self.under_way is not None:
                *_, began, limit = self.under_way
                until = min(until, began + limit)
            try:
                event = self.events.get(timeout=max(0.0, until - time.time()))
            except queue.Empty:
                if time.time() < self.check.end and self.under_way is not None:
                    self._failed(f"did not end within {self.under_way[-1]:.0f} s")
                return False
            if event is None:
                self.process.wait()
                self._failed(f"its process ended with code {self.code}: see worker.log")
                return False
            if self._note(event):
                return True

    def _failed(self, message: str) -> None:
        """Record the running item as failed."""
        if self.under_way is not None:
            phase, name, began, _ = self.under_way
            seconds = round(time.time() - began, 2)
            self.report.end(phase, Result(name, FAIL, seconds, message))

    def _note(self, event: dict[str, Any]) -> bool:
        kind = event["event"]
        if kind == "machine":
            # Keep the first description, made before anything ran on the device.
            self.report.machine = self.report.machine or event["values"]
        elif kind == "plan":
            self.report.plan(event["phase"], event["items"])
        elif kind == "begin":
            self.under_way = (event["phase"], event["item"], time.time(), event["limit"])
            self.report.begin(event["phase"], event["item"])
        elif kind == "result":
            self.under_way = None
            result = Result(**event["result"])
            log.info("%-8s %s: %s %s", result.status, event["phase"], result.name, result.message)
            self.report.end(event["phase"], result)
        return kind == "end"

    def stop(self) -> None:
        """Stop the process, by force if necessary, and all processes that it started."""
        try:
            # Listed now, as its servers may go on running if it is killed.
            started = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            started = []
        if self.process.stdin:
            self.process.stdin.close()
        try:
            self.process.wait(STOPPING_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for child in started:
            if child.is_running():
                child.kill()
