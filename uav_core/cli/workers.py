"""Runs one command in several processes, which Ray starts and watches."""

from __future__ import annotations

import importlib
import math
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingPackageError, UpscaleAVideoError

# A worker that died is started again; the others go on meanwhile.
RETRIES = 3
LOOK_SECONDS = 10.0


def run_workers(
    main: Callable[..., int],
    words: Sequence[str],
    count: int,
    *,
    address: str = "",
    gpus: float = 0,
) -> int:
    """Run ``main`` with ``words`` in ``count`` processes at once; returns the worst exit code.

    The work is not divided here: each process claims scenes that no other works on, as runs of one
    job do. A process that dies is started again, at most RETRIES times; the others go on
    meanwhile.

    Args:
        main: the command, called with ``words`` and ``share``, which is (number, count).
        words: the words of the command line.
        count: the number of processes.
        address: a Ray cluster whose machines reach the same files; "" for this machine.
        gpus: GPUs of each process, which has one CPU core as well; Ray hides all other GPUs.

    Raises:
        InputError: less than one worker, or a cluster that cannot be reached.
        MissingPackageError: Ray is not installed.
        WorkersLostError: a process died again and again.
    """
    if count < 1:
        raise InputError(f"{count} workers: expected 1 or more.")
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise MissingPackageError(
            f"Several workers need the package ray, which cannot be imported ({error}). Install "
            "ray, or run the same command in several terminals: runs of one job share its scenes."
        ) from error
    _connect(ray, address, count, count * gpus)
    try:
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_work)
        # No worker may wait for another to end before it can start.
        given = main, list(words), os.getcwd()
        running = [task.remote(*given, number, count) for number in range(count)]
        try:
            return max(ray.get(running))
        except ray.exceptions.WorkerCrashedError as error:
            raise WorkersLostError(
                f"A worker died {RETRIES + 1} times ({error}). Finished parts are kept. Look at "
                "the log of the worker, lower the number of workers, and run the same command "
                "again."
            ) from error
    finally:
        ray.shutdown()


class WorkersLostError(UpscaleAVideoError):
    """A worker died again and again."""


def _work(main: Callable[..., int], words: list[str], folder: str, number: int, count: int) -> int:
    # A cluster's processes start in its own folder; relative paths are of this one.
    with suppress(OSError):  # a machine without it can still have what absolute paths name
        os.chdir(folder)
    return main(words, share=(number, count))


def _connect(ray: Any, address: str, cpus: int, gpus: float) -> None:
    options: dict[str, Any] = {"address": address}
    if not address:
        # "local" joins no other cluster on this machine. One core for each worker, even if there
        # are not so many: otherwise some workers would wait for others.
        options = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        options |= {"num_gpus": math.ceil(gpus)} if gpus else {}
    # The folder of this package, for processes that are started elsewhere.
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    try:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host and port.isdigit():  # Ray would try for minutes if nothing listens there.
            socket.create_connection((host, int(port)), timeout=LOOK_SECONDS).close()
        ray.init(
            log_to_driver=True,
            runtime_env={"env_vars": {"PYTHONPATH": path.rstrip(os.pathsep)}},
            **options,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"Ray cannot be used at '{address or 'this machine'}' ({error}). Give the address of "
            "a running Ray cluster, such as 'auto' or 'ray://host:10001', or leave the address "
            "out."
        ) from error
