"""The process that runs items, told what to do and saying what it found as lines of JSON.

On its standard input comes one line, the order; when the input ends after it, whoever gave it is
gone, and the process ends as well. What it says goes to the standard output, which nothing else
writes to: ComfyUI's own words go to the error output.
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
"""Exit code where the device is of no use to this process any more."""
LIMIT, TIMES = 120.0, 8.0
"""An item that takes this many seconds, and so many times what it is said to take, hangs."""
CPU_LIMIT = 3600.0
"""The same without a card, where other load may be on the machine as well."""
TRACEBACK_CHARS = 6000

log = logging.getLogger("gpu_check")


class Channel:
    """The lines of JSON."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(self, event: str, **values: Any) -> None:
        """One line, at once."""
        self._out.write(json.dumps({"event": event, **values}) + "\n")
        self._out.flush()


def main() -> int:
    """Carry out the order."""
    channel = Channel()
    order = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are stopped
    threading.Thread(target=end_with_input, daemon=True).start()
    comfyui, out, work = (Path(order[name]) for name in ("comfyui", "out", "work"))
    pack = None
    if order["inside"]:
        from .inside import start_comfyui

        pack = start_comfyui(comfyui, work)
    logging.basicConfig(level=logging.INFO)  # ComfyUI has its own way
    from .machine import describe_machine
    from .place import Place

    with Place(comfyui, out, work, pack) as place:
        channel.send("machine", values=describe_machine(place))
        for phase in order["phases"]:
            module = import_module(f".{phase['module']}", __package__)
            items = list(module.items(place, *phase["options"]))
            run_phase(channel, phase, items, place)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is over anyway
    channel.send("end")
    return 0


def end_with_input() -> None:
    """Wait for the end of the input, then end this process."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def run_phase(channel: Channel, phase: dict[str, Any], items: Iterable[Item], place: Any) -> None:
    """Run the items that are not done yet and that the time until the deadline is enough for."""
    name, done = phase["name"], set(phase["done"])
    left = [item for item in items if item.name not in done]
    channel.send("plan", phase=name, items=[item.name for item in left])
    for item in left:
        # On a CPU the networks are tiny, and the times are those of a card.
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
    """Run one item; what came of it."""
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
