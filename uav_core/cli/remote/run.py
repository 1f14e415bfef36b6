"""Upscales one file on a server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from ...callbacks import Progress
from ...errors import InputError
from ...files import (
    hash_file,
    is_plain,
    move_over,
    named_errors,
    read_plain,
    sync_folder,
    write_whole,
    writing,
)
from ...jobs import FOLDER
from ...jobs.lock import lock_job
from ...jobs.passing import passing_folder
from ...jobs.plain import canonical
from ...video import fingerprint, probe
from . import ServerJobError
from .graph import UPSCALE, Graph, check_graph, node_kinds, result_name, with_files
from .server import Server, expected_form, plain_stem

DOWNLOADS = "downloads.json"
"""File in the folder of jobs, with a hash of the request and of the result of each download."""
_MOST_BYTES = 16 << 20


async def upscale_on_server(
    address: str,
    source: Path,
    target: Path,
    graph: Graph,
    progress: Progress,
    say: Callable[[str], None],
) -> str:
    """Upscale ``source`` with ``graph`` on the server, fetch the result and return its report.

    The input is uploaded unless the server has it. If this is cancelled, the prompt is stopped on
    the server, which keeps finished parts. ``target`` appears once it is complete; a file of that
    name that is not the result of the same input and settings is not replaced.

    Raises:
        UnreadableVideoError, InputError: the source, the address or the target cannot be used.
        ServerUnreachableError, MissingPackError, ServerJobError, ServerError: a server error.
        DiskFullError, FileError: the target cannot be written.
    """
    probe(source)  # An unreadable file is not sent.
    known = fingerprint(source)
    question = canonical({"contents": known.blake2b, "graph": graph}, "graph")
    asked = hashlib.blake2b(question, digest_size=16).hexdigest()
    downloads = target.parent / FOLDER / DOWNLOADS
    if os.path.lexists(target):
        if not _is_ours(target, asked, downloads):
            raise InputError(f"'{target}' already exists: choose another name, or move it away.")
        return f"{target.name} was finished before; nothing was done."
    async with Server.opened(address) as server:
        described = await server.node_info(node_kinds(graph))
        with expected_form(server.url):
            check_graph(graph, described)
        name = await server.place(source, known, say)
        prompt = str(uuid4())
        try:
            # Inside the try, so that a prompt is stopped even if its queueing was interrupted.
            prefix = f"video/{result_name(graph, plain_stem(source))}"
            named = with_files(graph, name, prefix)
            entry = await server.run(named, prompt, UPSCALE, progress, say)
        except asyncio.CancelledError:
            await server.cancel(prompt)
            raise
        with expected_form(server.url):
            shown = entry["outputs"].get(UPSCALE, {})
            saved = next((i for i in shown.get("images", ()) if i.get("type") == "output"), None)
            report = "\n".join(shown.get("text") or ())
        if saved is None:
            raise ServerJobError(
                "The server returned no result: it may have a different version of the pack. "
                "Update the pack on both machines."
            )
        say("fetching the result")
        downloads.parent.mkdir(parents=True, exist_ok=True)
        # What a killed run has fetched goes with its folder.
        with passing_folder(target.parent, ".fetching_") as folder:
            fetched = folder / target.name
            with writing(fetched) as file:
                await server.download(saved, file)
            _keep(fetched, target, {"asked": asked, "blake2b": hash_file(fetched)}, downloads)
    return report


def _keep(fetched: Path, target: Path, entry: dict[str, str], downloads: Path) -> None:
    """Record a fetched file and rename it to ``target``; InputError if that exists."""
    # Other runs record their files there too, and may have the same target.
    with lock_job(downloads.parent):
        if os.path.lexists(target):
            raise InputError(
                f"'{target}' was created by another program during the run: choose another name."
            )
        # Recorded before the file gets its name, so that it is always known as ours.
        text = json.dumps({**_read(downloads), target.name: entry}, indent=1, ensure_ascii=False)
        write_whole(downloads, text.encode())
        with named_errors(target, "writing"):
            move_over(fetched, target)
            sync_folder(target.parent)


def _is_ours(target: Path, asked: str, downloads: Path) -> bool:
    """Whether ``target`` is the result of the same request, whole and unchanged."""
    entry = _read(downloads).get(target.name)
    if not isinstance(entry, dict) or entry.get("asked") != asked or not is_plain(target):
        return False
    return entry.get("blake2b") == hash_file(target)


def _read(downloads: Path) -> dict[str, Any]:
    if not downloads.exists():
        return {}
    try:
        found = json.loads(read_plain(downloads, _MOST_BYTES))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
