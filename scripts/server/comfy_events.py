"""Events of a ComfyUI server from its websocket, with their times of arrival."""

import asyncio
import json
import threading
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

BINARY_KINDS = {1: "preview", 2: "unencoded_preview", 3: "text", 4: "preview"}


class ListenerError(Exception):
    """The websocket could not be opened."""


@dataclass(frozen=True)
class Event:
    """One message: its kind, its data (bytes for a preview) and its time of arrival."""

    time: float
    kind: str
    data: Any

    @property
    def prompt_id(self) -> str | None:
        """The id of its prompt, if it has one."""
        return self.data.get("prompt_id") if isinstance(self.data, dict) else None


class EventListener:
    """Collects a server's events in a separate thread."""

    def __init__(self, url: str, client_id: str):
        self.address = f"{url.replace('http', 'ws', 1)}/ws?clientId={client_id}"
        self._events: list[Event] = []
        self._arrived = threading.Condition()
        self._open = threading.Event()
        self._problem: Exception | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="comfy-events", daemon=True)
        self._task: asyncio.Task[None] | None = None

    def start(self, timeout: float = 30) -> None:
        """Open the websocket and listen until `stop`."""
        self._thread.start()
        if not self._open.wait(timeout) or self._problem:
            raise ListenerError(f"No websocket at {self.address}: {self._problem}")

    def stop(self) -> None:
        """Close the websocket."""
        if self._thread.is_alive() and self._task:
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(10)

    def all(self, kind: str | None = None, prompt_id: str | None = None) -> list[Event]:
        """The events so far, filtered by kind and by prompt if given."""
        with self._arrived:
            kept = list(self._events)
        return [
            event
            for event in kept
            if kind in (None, event.kind) and prompt_id in (None, event.prompt_id)
        ]

    def wait_for(self, kind: str, prompt_id: str | None = None, timeout: float = 60) -> Event:
        """Wait for the first event of a kind. Raises TimeoutError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            if found := self.all(kind, prompt_id):
                return found[0]
            with self._arrived:
                if not self._arrived.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"no {kind} event in {timeout:.0f} s")

    def _run(self) -> None:
        self._task = self._loop.create_task(self._listen())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except (aiohttp.ClientError, OSError) as error:
            self._problem = error
        finally:
            self._open.set()
            self._loop.close()

    async def _listen(self) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self.address, max_msg_size=0) as socket,
        ):
            self._open.set()
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    content = json.loads(message.data)
                    self._keep(content["type"], content.get("data"))
                elif message.type == aiohttp.WSMsgType.BINARY:
                    number = int.from_bytes(message.data[:4], "big")
                    self._keep(BINARY_KINDS.get(number, f"binary {number}"), message.data[4:])

    def _keep(self, kind: str, data: Any) -> None:
        with self._arrived:
            self._events.append(Event(time.monotonic(), kind, data))
            self._arrived.notify_all()
