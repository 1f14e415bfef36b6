"""Starts a real ComfyUI server and uses its HTTP and websocket interface.

Used by the tests, the demo and the benchmark. The server has its own folders and a free port of the
loopback interface, and this pack is linked into its `custom_nodes`.

    with ComfyServer(comfyui_path(version), environment_python(), base, ROOT) as server:
        entry = server.run(prompt)
        clip = server.output_path(entry)
"""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from scripts.env.layout import ROOT
from scripts.server.comfy_events import EventListener

PACK_FOLDER = "ComfyUI-UpscaleAVideo"
SHIM = ROOT / "tests" / "support" / "torchvision_shim"
POLL_SECONDS = 0.05

log = logging.getLogger("comfy_server")


class ComfyServerError(Exception):
    """The server could not be started, or it died."""


class PromptRejected(ComfyServerError):
    """The server refused a prompt; `node_errors` says why, by node id."""

    def __init__(self, answer: Mapping[str, Any]):
        self.node_errors: dict[str, Any] = answer.get("node_errors") or {}
        super().__init__(json.dumps(answer, indent=1))


class PromptFailed(ComfyServerError):
    """A node raised an error; its text and traceback are in the message and in `details`."""

    def __init__(self, details: Mapping[str, Any]):
        self.details = dict(details)
        where = f"node {details.get('node_id')} ({details.get('node_type')})"
        what = f"{details.get('exception_type')}: {details.get('exception_message')}"
        super().__init__(f"{where}: {what}\n{''.join(details.get('traceback') or [])}")


class PromptInterrupted(ComfyServerError):
    """The prompt was cancelled."""


class PromptTimeout(ComfyServerError):
    """The prompt did not end in time."""


@cache
def has_accelerator(python: Path) -> bool:
    """Whether the torch of `python` can reach a GPU; without one ComfyUI needs `--cpu`."""
    if python == Path(sys.executable) and "torch" in sys.modules:
        torch = sys.modules["torch"]  # saves the seconds of a new process that imports torch
        return (getattr(torch, "accelerator", None) or torch.cuda).is_available()
    code = (
        "import sys, torch; a = getattr(torch, 'accelerator', None); "
        "sys.exit(0 if (a or torch.cuda).is_available() else 1)"
    )
    return subprocess.run([str(python), "-c", code], capture_output=True).returncode == 0


def free_port() -> int:
    """A free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def lay_folders(base: Path, packs: Mapping[str, Path]) -> None:
    """Make ComfyUI's base directory, with ``packs`` linked into its custom nodes by name."""
    for name in ("user", "input", "output", "custom_nodes", "models"):
        (base / name).mkdir(parents=True, exist_ok=True)
    for name, folder in packs.items():
        link = base / "custom_nodes" / name
        link.unlink(missing_ok=True)
        link.symlink_to(folder.resolve(), target_is_directory=True)


class ComfyServer:
    """A headless ComfyUI with its own folders, port and database."""

    def __init__(
        self,
        comfyui: Path,
        python: Path,
        base: Path,
        pack: Path,
        extra_args: Sequence[str] = (),
    ):
        self.comfyui, self.python, self.base = comfyui, python, base.resolve()
        self.packs = {PACK_FOLDER: pack, SHIM.name: SHIM}
        self.extra_args = tuple(extra_args)
        self.environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        self.log_file = self.base / "server.log"
        self.client_id = uuid.uuid4().hex
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.listener: EventListener | None = None

    # ------------------------------------------------------------ starting and stopping

    def __enter__(self) -> "ComfyServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, timeout: float = 300) -> None:
        """Start the server; returns when it answers and the websocket is open."""
        lay_folders(self.base, self.packs)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        with self.log_file.open("wb") as output:
            self.process = subprocess.Popen(
                self._command(port),
                cwd=self.base,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            self._wait_until_ready(timeout)
            self.listener = EventListener(self.url, self.client_id)
            self.listener.start()
        except BaseException:
            self.stop()
            raise
        log.info("ComfyUI at %s, log in %s", self.url, self.log_file)

    def _command(self, port: int) -> list[str]:
        # If the system can, end the server when this process ends, even if it is killed.
        words = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
        words += [str(self.python), str(self.comfyui / "main.py"), "--listen", "127.0.0.1"]
        words += ["--port", str(port), "--base-directory", str(self.base)]
        for name in ("user", "input", "output", "temp"):
            # ComfyUI uses a sub-folder 'temp' of the folder in this option
            folder = self.base if name == "temp" else self.base / name
            words += [f"--{name}-directory", str(folder)]
        words += ["--database-url", f"sqlite:///{self.base / 'comfyui.db'}"]
        words += ["--disable-auto-launch", "--disable-api-nodes"]
        if not has_accelerator(self.python):
            words.append("--cpu")
        return [*words, *self.extra_args]

    def _wait_until_ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self._check_alive()
            try:
                self.stats()
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        raise ComfyServerError(f"No answer after {timeout:.0f} s:\n{self.log_tail()}")

    def _check_alive(self) -> None:
        code = self.process.poll() if self.process else "never started"
        if code is not None:
            raise ComfyServerError(
                f"The server is not running (exit code {code}):\n{self.log_tail()}"
            )

    def stop(self, timeout: float = 15) -> None:
        """Stop the server as Ctrl-C does, and kill it if it does not end in time."""
        if self.listener:
            self.listener.stop()
            self.listener = None
        if not self.process:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            log.warning("the server did not stop in %.0f s; killing it", timeout)
            self.process.kill()
            self.process.wait()
        self.process = None

    # ------------------------------------------------------------ what the server says

    @property
    def events(self) -> EventListener:
        """The listener with the events from the server's websocket."""
        if not self.listener:
            raise ComfyServerError("The server is not running.")
        return self.listener

    def log_text(self) -> str:
        """The server's log so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the log."""
        return "\n".join(self.log_text().splitlines()[-lines:])

    def get(self, path: str, **query: str) -> Any:
        """Get the JSON at `path`."""
        words = f"?{urllib.parse.urlencode(query)}" if query else ""
        with urllib.request.urlopen(f"{self.url}{path}{words}", timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, content: Any) -> Any:
        """Post JSON. Returns the JSON of the answer, or None if it is empty."""
        return self._post(path, json.dumps(content).encode(), "application/json")

    def _post(self, path: str, body: bytes, kind: str) -> Any:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def object_info(self) -> dict[str, Any]:
        """Every node the server knows, by id."""
        return self.get("/object_info")

    def stats(self) -> dict[str, Any]:
        """The server's versions, devices and memory."""
        return self.get("/system_stats")

    # ------------------------------------------------------------ work

    def upload(self, path: Path) -> str:
        """Upload a file to the input folder as the page does. Returns its name there."""
        mark = uuid.uuid4().hex
        head = (
            f'--{mark}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'
            f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + path.read_bytes() + f"\r\n--{mark}--\r\n".encode()
        answer = self._post("/upload/image", body, f"multipart/form-data; boundary={mark}")
        return "/".join(filter(None, (answer.get("subfolder"), answer["name"])))

    def queue(self, prompt: Mapping[str, Any]) -> str:
        """Queue an API-format prompt and return its id. Raises PromptRejected."""
        content = {"prompt": prompt, "client_id": self.client_id}
        try:
            return self.post("/prompt", content)["prompt_id"]
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
            raise PromptRejected(json.load(error)) from error

    def wait(
        self, prompt_id: str, timeout: float = 900, meanwhile: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Wait for a prompt's end, calling ``meanwhile`` often. Returns its history entry."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            except OSError:
                time.sleep(
                    POLL_SECONDS
                )  # a stopping server refuses connections before its process ends
                self._check_alive()
                raise
            if entry:
                return self._judged(entry)
            meanwhile()
            time.sleep(POLL_SECONDS)
        raise PromptTimeout(f"{prompt_id} has not ended after {timeout:.0f} s:\n{self.log_tail()}")

    @staticmethod
    def _judged(entry: dict[str, Any]) -> dict[str, Any]:
        messages = dict(entry.get("status", {}).get("messages") or [])
        if "execution_error" in messages:
            raise PromptFailed(messages["execution_error"])
        if "execution_interrupted" in messages:
            raise PromptInterrupted(json.dumps(messages["execution_interrupted"]))
        return entry

    def run(self, prompt: Mapping[str, Any], timeout: float = 900) -> dict[str, Any]:
        """Queue a prompt and wait for its end. Returns its history entry."""
        return self.wait(self.queue(prompt), timeout)

    def interrupt(self) -> None:
        """Cancel the running prompt."""
        self.post("/interrupt", {})

    def free(self) -> None:
        """Unload every model and forget cached results, as the page's menu does."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def output_paths(self, entry: Mapping[str, Any], node: str | None = None) -> list[Path]:
        """The files that a finished prompt, or one node of it, saved."""
        folders = {"output": self.base / "output", "temp": self.base / "temp"}
        nodes = entry["outputs"] if node is None else {node: entry["outputs"][node]}
        saved = [
            item
            for results in nodes.values()
            for listed in results.values()
            for item in listed
            if isinstance(item, dict) and item.get("type") in folders
        ]
        return [folders[item["type"]] / item["subfolder"] / item["filename"] for item in saved]

    def output_path(self, entry: Mapping[str, Any], node: str | None = None) -> Path:
        """The only file that a finished prompt, or one node of it, saved."""
        (path,) = self.output_paths(entry, node)
        return path
