"""The process that runs items: it reads an order and writes results as lines of JSON.

Its standard input has one line, the order. When the input ends, the main process has ended, and
this one ends as well. Results go to the standard output; all other output, also ComfyUI's, goes to
standard error.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from .items import CheckFailedError, Item, NotPossibleError
from .report import FAIL, PASS, SKIPPED, Result

DEVICE_BROKEN = 3
"""Exit code if this process cannot use the device any more."""
LIMIT, TIMES = 120.0, 8.0
"""An item hangs if it takes more seconds than LIMIT, and more than TIMES its estimate."""
CPU_LIMIT = 3600.0
"""Limit without a GPU, in seconds, as other programs may slow the machine down."""
TRACEBACK_CHARS = 6000

log = logging.getLogger("gpu_check")


class Channel:
    """Writes lines of JSON to the standard output."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(self, event: str, **values: Any) -> None:
        """Write one line and flush."""
        self._out.write(json.dumps({"event": event, **values}) + "\n")
        self._out.flush()


def main() -> int:
    """Read the order and run its phases."""
    channel = Channel()
    order = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are stopped
    threading.Thread(target=end_with_input, daemon=True).start()
    comfyui, out, work = (Path(order[name]) for name in ("comfyui", "out", "work"))
    pack = None
    if order["inside"]:
        from .inside import start_comfyui

        pack = start_comfyui(comfyui, work)
    logging.basicConfig(level=logging.INFO)  # if ComfyUI did not set it up
    from .machine import describe_machine
    from .place import Place

    with Place(comfyui, out, work, pack) as place:
        channel.send("machine", values=describe_machine(place))
        for phase in order["phases"]:
            module = import_module(f".{phase['module']}", __package__)
            items = list(module.items(place, *phase["options"]))
            run_phase(channel, phase, items, place)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the process ends anyway
    channel.send("end")
    return 0


def end_with_input() -> None:
    """Wait for the end of the input, then end this process."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def run_phase(channel: Channel, phase: dict[str, Any], items: Iterable[Item], place: Any) -> None:
    """Run the items that are not done yet, as far as the time until the deadline allows."""
    name, done = phase["name"], set(phase["done"])
    left = [item for item in items if item.name not in done]
    channel.send("plan", phase=name, items=[item.name for item in left])
    for item in left:
        # Estimates are for a GPU; on a CPU the networks are tiny.
        needed = 0 if place.tiny else item.seconds
        remains = phase["deadline"] - time.time()
        if remains < max(needed, 1):
            why = f"no time left: it takes about {item.seconds:.0f} s"
            channel.send("result", phase=name, result=vars(Result(item.name, message=why)))
            continue
        limit = CPU_LIMIT if place.tiny else max(LIMIT, TIMES * item.seconds)
        channel.send("begin", phase=name, item=item.name, limit=limit)
        channel.send("result", phase=name, result=vars(run_item(item)))
        try:
            place.tidy()
        except Exception:
            log.exception("the device does not answer after %s", item.name)
            sys.exit(DEVICE_BROKEN)


def run_item(item: Item) -> Result:
    """Run one item and return its result."""
    log.info("== %s", item.name)
    started = time.monotonic()
    result = Result(item.name, message="")
    try:
        result.values = dict(item.run())
        result.status = PASS
    except NotPossibleError as error:
        result.status, result.message = SKIPPED, str(error)
    except CheckFailedError as error:
        result.status, result.message = FAIL, str(error)
    except Exception as error:
        log.exception("%s", item.name)
        lines = str(error).strip().splitlines()[:1]
        result.status = FAIL
        result.message = f"{type(error).__name__}: {' '.join(lines)[:300]}"
        result.traceback = traceback.format_exc()[-TRACEBACK_CHARS:]
    result.seconds = round(time.monotonic() - started, 2)
    return result
