"""The client of ``--server`` on small servers that answer as ComfyUI, or as what is before it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from video_files import write_clip

from scripts.env.layout import ROOT
from uav_core import InputError
from uav_core.callbacks import ignore
from uav_core.cli.options import parser, run_params
from uav_core.cli.remote import ServerError, ServerJobError, ServerUnreachableError
from uav_core.cli.remote import server as client
from uav_core.cli.remote.graph import WeightNames, long_video_graph
from uav_core.cli.remote.run import DOWNLOADS, upscale_on_server
from uav_core.cli.remote.server import Server, server_url
from uav_core.jobs import FOLDER
from uav_core.video import EncodeParams

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

WAIT = 60
GRAPH = long_video_graph(
    run_params(parser("").parse_args(["a", "b.mp4"])),
    EncodeParams("h264", ".mp4", None, "auto"),
    WeightNames(),
)
KNOWN = {
    node["class_type"]: {"input": {"required": {name: ["*"] for name in node["inputs"]}}}
    for node in GRAPH.values()
}


class Comfy:
    """A server with ComfyUI's answers; ``answers`` replaces some, ("GET", "queue") for example."""

    def __init__(self, answers: Mapping[tuple[str, str], Answer] | None = None) -> None:
        self.result, self.block, self.pause = b"result" * 1000, 6000, 0.0
        self.uploads: list[str] = []
        self.sending = asyncio.Event()
        self._prompts: set[str] = set()
        self._answers: dict[tuple[str, str], Answer] = {
            ("GET", "object_info"): self._info,
            ("HEAD", "view"): self._missing,
            ("GET", "view"): self._view,
            ("POST", "upload"): self._upload,
            ("POST", "prompt"): self._prompt,
            ("GET", "queue"): said({"queue_running": [], "queue_pending": []}),
            ("GET", "history"): self._history,
        } | dict(answers or {})

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        answer = self._answers.get((request.method, request.path.split("/")[1]), self._missing)
        return await answer(request)

    async def _missing(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    async def _info(self, request: web.Request) -> web.StreamResponse:
        kind = request.path.rpartition("/")[2]
        return web.json_response({kind: KNOWN[kind]})

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        file = form["image"]
        assert isinstance(file, web.FileField)
        self.uploads.append(file.filename)
        return web.json_response({"name": file.filename, "subfolder": form["subfolder"]})

    async def _prompt(self, request: web.Request) -> web.StreamResponse:
        self._prompts.add((await request.json())["prompt_id"])
        return web.json_response({})

    async def _history(self, request: web.Request) -> web.StreamResponse:
        prompt = request.path.rpartition("/")[2]
        image = {"filename": "x.mp4", "subfolder": "video", "type": "output"}
        outputs = {"upscale": {"images": [image], "text": ["done there"]}}
        entry = {"status": {"messages": []}, "outputs": outputs}
        return web.json_response({prompt: entry} if prompt in self._prompts else {})

    async def _view(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": str(len(self.result))})
        await answer.prepare(request)
        for start in range(0, len(self.result), self.block):
            await answer.write(self.result[start : start + self.block])
            self.sending.set()
            await asyncio.sleep(self.pause)
        return answer


def said(content: Any) -> Answer:
    """Answers with JSON, or with the text of a page."""

    async def answer(_: web.Request) -> web.StreamResponse:
        if isinstance(content, str):
            return web.Response(text=content, content_type="text/html")
        return web.json_response(content)

    return answer


def behind(address: str) -> Answer:
    """Redirects to an address, as nginx does from http to https."""

    async def answer(request: web.Request) -> web.StreamResponse:
        raise web.HTTPMovedPermanently(f"{address}{request.rel_url}")

    return answer


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@asynccontextmanager
async def served(answer: Answer):
    """The address of a server."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await answer(request)

    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def clip(tmp_path) -> Path:
    return write_clip(tmp_path / "clip.mp4", 3)


async def upscale(address: str, source: Path, target: Path) -> str:
    return await upscale_on_server(address, source, target, GRAPH, ignore, ignore)


def of_one(answer: Answer, source: Path, target: Path, user: str = "") -> str:
    """The report of a job on a server of its own."""

    async def job() -> str:
        async with served(answer) as address:
            return await upscale(address.replace("//", f"//{user}"), source, target)

    return asyncio.run(job())


def test_two_runs_with_one_target_give_the_whole_result_of_one(clip, tmp_path):
    """The second is stopped while it fetches, so its part of the file must not become the video."""
    target = tmp_path / "out" / "large.mp4"

    async def both() -> None:
        async with AsyncExitStack() as stack:
            first, second = Comfy(), Comfy()
            first.result, first.pause = b"1" * 60_000, 0.05
            second.result, second.pause = b"2" * 600_000, 0.05
            addresses = [await stack.enter_async_context(served(one)) for one in (first, second)]
            one = asyncio.create_task(upscale(addresses[0], clip, target))
            await asyncio.wait_for(first.sending.wait(), WAIT)
            other = asyncio.create_task(upscale(addresses[1], clip, target))
            await asyncio.wait_for(second.sending.wait(), WAIT)
            assert await asyncio.wait_for(one, WAIT) == "done there"
            other.cancel()
            with pytest.raises(asyncio.CancelledError):
                await other
            assert target.read_bytes() == first.result
            assert "finished before" in await upscale(addresses[0], clip, target)

    asyncio.run(both())
    assert sorted(p.name for p in target.parent.iterdir()) == ["large.mp4", FOLDER]


def in_process(call: str, *paths: Path) -> subprocess.Popen[bytes]:
    """Calls a function of this module in another process, once it has said that it is ready."""
    folders = (ROOT, ROOT / "tests" / "support", Path(__file__).parent)
    command = [sys.executable, "-c", f"from {__name__} import *; {call}", *map(str, paths)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        pytest.fail(process.communicate()[1].decode())
    return process


def fetch_forever() -> None:
    comfy = Comfy()
    comfy.block, comfy.pause = 100, WAIT

    async def job() -> None:
        async with served(comfy) as address:
            fetching = asyncio.create_task(upscale(address, *map(Path, sys.argv[1:])))
            await comfy.sending.wait()
            print("ready", flush=True)
            await fetching

    asyncio.run(job())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_what_a_killed_run_has_fetched_goes_with_the_next(clip, tmp_path):
    target = tmp_path / "out" / "large.mp4"
    process = in_process("fetch_forever()", clip, target)
    process.kill()
    process.communicate()
    assert list(target.parent.rglob("large.mp4.*")), "it was not fetching"
    assert of_one(Comfy(), clip, target) == "done there"
    assert sorted(p.name for p in target.parent.iterdir()) == ["large.mp4", FOLDER]


def fetch_many(name: str) -> None:
    source, folder = map(Path, sys.argv[1:])

    async def jobs() -> None:
        async with served(Comfy()) as address:
            print("ready", flush=True)
            sys.stdin.readline()
            for number in range(15):
                await upscale(address, source, folder / f"{name}{number}.mp4")

    asyncio.run(jobs())


def test_every_download_of_two_processes_is_recorded(clip, tmp_path):
    folder = tmp_path / "out"
    processes = [in_process(f"fetch_many({name!r})", clip, folder) for name in "ab"]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
    for process in processes:
        errors = process.communicate(timeout=WAIT)[1].decode()
        assert process.returncode == 0, errors
    made = {path.name for path in folder.glob("*.mp4")}
    assert len(made) == 30
    assert set(json.loads((folder / FOLDER / DOWNLOADS).read_bytes())) == made


@pytest.mark.parametrize("deeper", ["", "/comfy"])
def test_a_redirected_address_works(clip, tmp_path, deeper):
    """From http to https, as nginx does it: a POST that followed would become a GET."""
    comfy = Comfy()

    async def below(request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix(deeper)
        assert request.path.startswith(deeper) and path.startswith("/")
        return await comfy(request.clone(rel_url=request.rel_url.with_path(path, keep_query=True)))

    async def job() -> str:
        async with served(below) as own, served(behind(own + deeper)) as front:
            return await upscale(front, clip, tmp_path / "large.mp4")

    assert asyncio.run(job()) == "done there" and len(comfy.uploads) == 1


def test_a_redirect_to_a_login_is_said_with_its_address(clip, tmp_path):
    async def job() -> None:
        async with served(said("<html>Who are you?</html>")) as own:

            async def login(_: web.Request) -> web.StreamResponse:
                raise web.HTTPFound(f"{own}/login?from=secret")

            async with served(login) as front:
                with pytest.raises(ServerUnreachableError, match=f"redirects to {own}/login:"):
                    await upscale(front, clip, tmp_path / "large.mp4")

    asyncio.run(job())


def test_a_redirect_on_the_same_server_keeps_the_password(clip, tmp_path):
    comfy, asked = Comfy(), set[tuple[str, str | None]]()

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.add((request.path.split("/")[1], request.headers.get("Authorization")))
        if not request.path.startswith("/comfy/"):
            raise web.HTTPFound(f"/comfy{request.rel_url}")
        url = request.rel_url.with_path(request.path.removeprefix("/comfy"), keep_query=True)
        return await comfy(request.clone(rel_url=url))

    assert of_one(answer, clip, tmp_path / "large.mp4", "me:secret@") == "done there"
    assert asked == {("object_info", "Basic bWU6c2VjcmV0"), ("comfy", "Basic bWU6c2VjcmV0")}


def test_a_small_upload_that_breaks_off_is_not_called_too_large(clip, tmp_path):
    with pytest.raises(ServerUnreachableError, match="No ComfyUI answers") as caught:
        of_one(Comfy({("POST", "upload"): hang_up}), clip, tmp_path / "large.mp4")
    assert "max-upload-size" not in str(caught.value)


@pytest.mark.parametrize("size", [100 << 20, None], ids=["hangs up", "says 413"])
def test_an_upload_that_is_too_large_is_said(clip, tmp_path, size):
    async def refuse(_: web.Request) -> web.StreamResponse:
        raise web.HTTPRequestEntityTooLarge(1, 2)

    if size is not None:
        os.truncate(clip, size)
    with pytest.raises(ServerError, match="--max-upload-size"):
        answers = {("POST", "upload"): refuse if size is None else hang_up}
        of_one(Comfy(answers), clip, tmp_path / "large.mp4")


OTHER_FORMS = [
    ("GET", "object_info", ["x"]),
    ("GET", "object_info", "<html>Who are you?</html>"),
    ("GET", "object_info", {kind: {"inputs": 1} for kind in KNOWN}),
    ("POST", "upload", "<html>Who are you?</html>"),
    ("POST", "upload", ["x"]),
    ("POST", "upload", {"subfolder": "x"}),
    ("GET", "queue", {"queue_running": None}),
    ("GET", "queue", {"queue_running": [7]}),
    ("GET", "history", ["x"]),
]


@pytest.mark.parametrize(("method", "path", "content"), OTHER_FORMS)
def test_an_answer_of_another_form_is_a_named_error(
    clip, tmp_path, monkeypatch, method, path, content
):
    monkeypatch.setattr(client, "PATIENCE", 0.0)
    with pytest.raises(ServerUnreachableError, match="not the expected JSON"):
        of_one(Comfy({(method, path): said(content)}), clip, tmp_path / "large.mp4")


@pytest.mark.parametrize("entry", [7, {"status": {"messages": 7}}, {}, {"outputs": {"upscale": 7}}])
def test_a_history_of_another_form_is_a_named_error(clip, tmp_path, monkeypatch, entry):
    async def history(request: web.Request) -> web.StreamResponse:
        return web.json_response({request.path.rpartition("/")[2]: entry})

    monkeypatch.setattr(client, "PATIENCE", 0.0)
    with pytest.raises(ServerUnreachableError, match="not the expected JSON"):
        of_one(Comfy({("GET", "history"): history}), clip, tmp_path / "large.mp4")


@pytest.mark.parametrize("reasons", [["x"], {"node_errors": ["x"]}, {"node_errors": {"1": 7}}])
def test_a_refusal_of_another_form_is_a_named_error(clip, tmp_path, reasons):
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response(reasons, status=400)

    with pytest.raises(ServerJobError, match="rejected the job: 400 Bad Request"):
        of_one(Comfy({("POST", "prompt"): refuse}), clip, tmp_path / "large.mp4")


def test_messages_of_other_packs_do_not_end_the_progress():
    others = ["no JSON", "7", '{"type": "mine", "data": "text"}', '{"type": "progress"}']
    data = {"prompt_id": "p", "node": "n", "value": 2, "max": 5}
    heard: list[tuple[int, int]] = []

    async def talk(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for text in (*others, json.dumps({"type": "progress", "data": data})):
            await socket.send_str(text)
        await asyncio.sleep(WAIT)
        return socket

    async def listen() -> None:
        progressed = asyncio.Event()

        def progress(*done: int) -> None:
            heard.append((done[0], done[1]))
            progressed.set()

        async with served(talk) as address, Server.opened(address) as server:
            ready = asyncio.Event()
            listening = asyncio.create_task(server._listen("p", "n", progress, ignore, ready))
            try:
                await asyncio.wait_for(progressed.wait(), 10)
            finally:
                listening.cancel()

    asyncio.run(listen())
    assert heard == [(2, 5)]


async def _refused(_: web.Request) -> web.StreamResponse:
    return web.Response(status=401)


@pytest.mark.parametrize(
    "answer",
    [
        _refused,
        hang_up,
        said("<html>"),
        said(["x"]),
        Comfy({("POST", "upload"): hang_up}),
        Comfy({("POST", "upload"): said("<html>")}),
        Comfy({("GET", "queue"): said({"queue_running": 7})}),
    ],
)
def test_no_message_has_the_password(clip, tmp_path, monkeypatch, caplog, answer):
    monkeypatch.setattr(client, "PATIENCE", 0.0)
    with caplog.at_level(logging.DEBUG), pytest.raises(ServerUnreachableError) as caught:
        of_one(answer, clip, tmp_path / "large.mp4", "me:secret@")
    assert "127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value) + caplog.text


@pytest.mark.parametrize(
    "text", ["ftp://me:secret@host", "me:secret@host:port", "http://me:secret@"]
)
def test_no_refused_address_has_the_password(text):
    with pytest.raises(InputError, match="expected an address") as caught:
        server_url(text)
    assert "secret" not in str(caught.value)
