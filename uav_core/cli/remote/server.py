"""A client for a running ComfyUI, with the requests that a job needs."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import aiohttp
from yarl import URL

from ...callbacks import Progress
from ...errors import InputError
from ...files import BLOCK
from ...video.fingerprint import Fingerprint
from . import ServerError, ServerJobError, ServerUnreachableError

PATIENCE = 60.0
"""Seconds that a server may be silent during a job before it counts as gone."""
UPLOADS = "upscale_a_video"
"""The folder for uploads inside the server's input folder."""
_DEEPEST = 8  # most names of a path, counted from its end, that are tried in the input folder
_TEXT_MESSAGE = 3
_MOST_SENT = 100 << 20  # bytes of a request that ComfyUI takes by default
_FORM = 1 << 20  # more bytes than a form adds to its file
# What reading an answer of another form than ComfyUI's raises.
_OTHER_FORM = (AttributeError, LookupError, TypeError, ValueError)

log = logging.getLogger(__name__)


def server_url(text: str) -> URL:
    """A server's address from a text with or without "http://"; InputError if it is not one."""
    try:
        url = URL(text if "://" in text else f"http://{text}")
        if url.scheme in ("http", "https") and url.host:
            return url.with_query(None).with_fragment(None)
    except ValueError:
        pass
    without_password = text.rpartition("@")[2]
    raise InputError(
        f"The server address is '{without_password}': expected an address such as "
        "http://127.0.0.1:8188."
    )


def shown(url: URL) -> URL:
    """An address for messages, which people pass on: without user and password."""
    return url.with_user(None)


@contextmanager
def expected_form(url: URL) -> Iterator[None]:
    """Turn an error inside the block, which reads an answer, into ServerUnreachableError."""
    try:
        yield
    except _OTHER_FORM as error:
        raise ServerUnreachableError(
            f"{shown(url)} is not a ComfyUI server: its answer is not the expected JSON "
            f"({type(error).__name__}: {error}). Check the address; a proxy may ask for a login."
        ) from error


class Server:
    """A ComfyUI server. Make it with ``opened``."""

    def __init__(self, url: URL, session: aiohttp.ClientSession) -> None:
        self.url, self._session = url, session
        self._client = uuid4().hex

    @classmethod
    @asynccontextmanager
    async def opened(cls, text: str) -> AsyncIterator[Server]:
        """The server at the address; only the first request shows whether it answers."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=120)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            yield cls(server_url(text), session)

    # --- questions ---------------------------------------------------------------------------

    @asynccontextmanager
    async def _ask(
        self, method: str, path: str, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._session.request(method, self.url / path, **options) as answer:
                yield answer
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            raise ServerUnreachableError(
                f"No ComfyUI answers at {shown(self.url)} ({error or type(error).__name__}). Start "
                "ComfyUI, and use the address in its log: --server http://HOST:PORT."
            ) from error

    async def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The object that the server answers, {} for an empty answer."""
        async with self._ask(method, path, **options) as answer:
            body = await answer.read()
            if method == "GET" and answer.history:
                self.url = self._redirected(answer.url, path)
            if answer.status != 200:
                raise ServerUnreachableError(
                    f"{shown(answer.url)} answers {answer.status} {answer.reason}: expected a "
                    "ComfyUI server. Check the address."
                )
        with expected_form(answer.url):
            found = json.loads(body) if body else {}
            if not isinstance(found, dict):
                raise TypeError(f"expected an object, not {type(found).__name__}")
            return found

    def _redirected(self, url: URL, path: str) -> URL:
        """The server's own address, if a question for ``path`` was led to ``url``.

        Later requests go there directly: a redirected POST would become a GET without content.
        """
        base, found, more = url.path.rpartition(f"/{path}")
        if not found or more:
            raise ServerUnreachableError(
                f"{shown(self.url)} redirects to {shown(url.with_query(None))}: expected a ComfyUI "
                "server. Use the address behind the redirect; a proxy may ask for a login."
            )
        own = url.with_path(base or "/")
        if url.origin() == self.url.origin():  # a password goes to no other, as in the session
            own = own.with_user(self.url.user).with_password(self.url.password)
        return own

    async def node_info(self, kinds: tuple[str, ...]) -> dict[str, Any]:
        """The server's descriptions of node classes; those it does not have are left out."""
        known: dict[str, Any] = {}
        for kind in kinds:
            known.update(await self._json("GET", f"object_info/{kind}"))
        return known

    # --- the input ---------------------------------------------------------------------------

    async def place(self, source: Path, known: Fingerprint, say: Callable[[str], None]) -> str:
        """The name of the file in the server's input folder; uploads it if it is not there.

        A file there is recognised by name, size and modification time; an earlier upload by its
        size and its name, which has the contents' hash.
        """
        parts = source.resolve().parts[1:]
        for depth in range(1, min(len(parts), _DEEPEST) + 1):
            found = await self._stored("/".join(parts[-depth:]))
            if found == f'"{known.mtime_ns:x}-{known.size:x}"':
                return "/".join(parts[-depth:])
        name = f"{plain_stem(source)}_{known.blake2b[:12]}{source.suffix.lower()}"
        found = await self._stored(f"{UPLOADS}/{name}")
        if found is not None and found.endswith(f'-{known.size:x}"'):
            return f"{UPLOADS}/{name}"
        say("sending the video")
        return await self._upload(source, name)

    async def _stored(self, name: str) -> str | None:
        """The entity tag of a file in the input folder, from its time and size; None if missing."""
        folder, _, file = name.rpartition("/")
        query = {"filename": file, "subfolder": folder, "type": "input"}
        async with self._ask("HEAD", "view", params=query) as answer:
            return answer.headers.get("ETag") if answer.status == 200 else None

    async def _upload(self, source: Path, name: str) -> str:
        # ComfyUI takes names as they are, without the escapes of a form.
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("subfolder", UPLOADS)
        form.add_field("type", "input")
        try:
            file = source.open("rb")
        except OSError as error:
            raise InputError(f"'{source}' cannot be read ({error.strerror}).") from error
        with file:
            form.add_field("image", file, filename=name, content_type="application/octet-stream")
            size = source.stat().st_size
            try:
                async with self._ask("POST", "upload/image", data=form) as answer:
                    body = await answer.read()
            except ServerUnreachableError as error:
                # A server that refuses the size closes the connection in the middle. If it does
                # not answer now either, that is another error.
                if size < _MOST_SENT - _FORM:
                    raise
                await self._json("GET", "queue")
                raise self._too_large(source, size) from error
        if answer.status == 413:
            raise self._too_large(source, size)
        if answer.status != 200:
            raise ServerError(
                f"The server did not accept '{source.name}' ({answer.status} {answer.reason}). "
                "Look into its log; its input folder may be read-only or its disk full."
            )
        with expected_form(answer.url):
            stored = json.loads(body)
            return "/".join(filter(None, (stored.get("subfolder"), stored["name"])))

    def _too_large(self, source: Path, size: int) -> ServerError:
        need = size // (1 << 20) + 10
        return ServerError(
            f"The server did not accept '{source.name}' of {size / (1 << 20):.0f} MiB: its "
            f"default limit is 100 MiB. Start the server with --max-upload-size {need}. If it "
            "runs on this machine, you can also put the file into its input folder and give that "
            "path."
        )

    # --- the job -----------------------------------------------------------------------------

    async def _queue(self, graph: dict[str, Any], prompt: str) -> None:
        content = {"prompt": graph, "prompt_id": prompt, "client_id": self._client}
        async with self._ask("POST", "prompt", json=content) as answer:
            body = await answer.read()
        if answer.status != 200:
            why = ""
            with suppress(*_OTHER_FORM):  # a proxy's answer has no reasons
                why = refusal(json.loads(body))
            why = why or f"{answer.status} {answer.reason}"
            raise ServerJobError(f"The server rejected the job: {why}.")

    async def run(
        self,
        graph: dict[str, Any],
        prompt: str,
        node: str,
        progress: Progress,
        say: Callable[[str], None],
    ) -> dict[str, Any]:
        """Queue a graph under our own UUID ``prompt``, wait, and return its history entry.

        ``progress`` and ``say`` get the reports of ``node`` meanwhile. Raises ServerJobError if the
        server refuses the graph, a node fails or the prompt is stopped, ServerUnreachableError if
        the server goes away.
        """
        ready = asyncio.Event()
        listening = asyncio.create_task(self._listen(prompt, node, progress, say, ready))
        try:
            await ready.wait()  # messages before the socket is open are lost
            await self._queue(graph, prompt)
            heard = time.monotonic()
            while True:
                try:
                    # In this order: a job that leaves the queue is in the history at once.
                    queue = await self._json("GET", "queue")
                    with expected_form(self.url):
                        waits = any(item[1] == prompt for items in queue.values() for item in items)
                    entry = (await self._json("GET", f"history/{prompt}")).get(prompt)
                    if entry is not None:
                        with expected_form(self.url):
                            return judged(entry)
                    if not waits:
                        raise ServerJobError(
                            "The server no longer knows the job: the server was restarted, or its "
                            "queue was cleared. Run the same command again to continue."
                        )
                    heard = time.monotonic()
                except ServerUnreachableError:
                    if time.monotonic() - heard > PATIENCE:
                        raise
                await asyncio.sleep(1)
        finally:
            listening.cancel()

    async def _listen(
        self,
        prompt: str,
        node: str,
        progress: Progress,
        say: Callable[[str], None],
        ready: asyncio.Event,
    ) -> None:
        """Listen for reports of a prompt; sets ``ready`` once it listens, or cannot.

        If it cannot, there is no progress to show, but the job goes on.
        """
        address = self.url / "ws"
        while True:
            try:
                async with self._session.ws_connect(
                    address, params={"clientId": self._client}, max_msg_size=0
                ) as socket:
                    ready.set()
                    async for message in socket:
                        if message.type == aiohttp.WSMsgType.TEXT:
                            done = node_progress(message.data, prompt, node)
                            if done is not None:
                                progress(*done)
                        elif message.type == aiohttp.WSMsgType.BINARY:
                            text = node_text(message.data, node)
                            if text is not None:
                                say(text)
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                log.debug("No progress from %s: %s", shown(address), error)
            finally:
                ready.set()
            await asyncio.sleep(1)

    async def cancel(self, prompt: str) -> None:
        """Stop a prompt, whether it runs or waits; other prompts go on."""
        timeout = aiohttp.ClientTimeout(total=10)
        try:
            await self._json("POST", "queue", json={"delete": [prompt]}, timeout=timeout)
            queue = await self._json("GET", "queue", timeout=timeout)
            with expected_form(self.url):
                runs = any(item[1] == prompt for item in queue["queue_running"])
            if runs:
                await self._json("POST", "interrupt", json={"prompt_id": prompt}, timeout=timeout)
        except ServerUnreachableError as error:
            log.warning("The job on the server could not be stopped: %s", error)

    # --- the result --------------------------------------------------------------------------

    async def download(self, saved: dict[str, Any], file: BinaryIO) -> None:
        """Write a file of the server's output folder into ``file``."""
        query = {key: saved.get(key, "") for key in ("filename", "subfolder", "type")}
        async with self._ask("GET", "view", params=query) as answer:
            if answer.status != 200:
                raise ServerError(
                    f"The server no longer has the file '{query['filename']}' ({answer.status}), "
                    "but ComfyUI still has the result in its cache. Restart ComfyUI, or use "
                    "'Unload models and execution cache' on its page, and run the same command "
                    "again."
                )
            async for block in answer.content.iter_chunked(BLOCK):
                file.write(block)


def plain_stem(path: Path) -> str:
    """A file's name without its extension, in characters that every system takes."""
    return re.sub(r"[^\w -]+", "_", path.stem)[:48].strip() or "video"


def node_progress(message: str, prompt: str, node: str) -> tuple[int, int] | None:
    """(done, total) of ``node``, from a text message; None for any other message."""
    with suppress(*_OTHER_FORM):  # other packs send messages of any form
        said = json.loads(message)
        data = said["data"]
        if (said["type"], data["prompt_id"], data["node"]) == ("progress", prompt, node):
            return int(data["value"]), int(data["max"])
    return None


def node_text(message: bytes, node: str) -> str | None:
    """The text that ``node`` shows, from a binary message; None for any other message."""
    kind, rest = int.from_bytes(message[:4], "big"), message[4:]
    length = int.from_bytes(rest[:4], "big")
    if kind != _TEXT_MESSAGE or rest[4 : 4 + length] != node.encode():
        return None
    return rest[4 + length :].decode(errors="replace")


def refusal(answer: dict[str, Any]) -> str:
    """ComfyUI's reasons to refuse a graph, in one line."""
    said = [answer.get("error") or {}]
    for node in (answer.get("node_errors") or {}).values():
        said += [{**error, "node": node.get("class_type")} for error in node.get("errors", ())]
    lines = [
        ": ".join(str(one[key]) for key in ("node", "message", "details") if one.get(key))
        for one in said
        if isinstance(one, dict)
    ]
    return "; ".join(line for line in lines if line)


def judged(entry: dict[str, Any]) -> dict[str, Any]:
    """A prompt's history entry if it succeeded; otherwise raises ServerJobError."""
    messages = dict((entry.get("status") or {}).get("messages") or ())
    if "execution_error" in messages:
        failed = messages["execution_error"]
        kind = str(failed.get("exception_type")).rpartition(".")[2]
        raise ServerJobError(
            f"The server failed in {failed.get('node_type')}: {kind}: "
            f"{str(failed.get('exception_message')).strip()}"
        )
    if "execution_interrupted" in messages:
        raise ServerJobError(
            "The job was stopped on the server. Finished parts are kept there; run the same "
            "command again to continue."
        )
    return entry
