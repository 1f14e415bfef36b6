"""Release check on this machine's GPU: does the pack run there, how exactly and how fast?

    python scripts/gpu_check.py --out FOLDER [--budget SECONDS] [--phases NAME...]

Run it with the Python that runs your ComfyUI. It uses the ComfyUI that COMFYUI_PATH names, else the
one whose custom_nodes folder contains this pack, else the one that `make demo` downloaded. Weights
are generated; nothing is downloaded or installed. report.md and report.json in FOLDER are rewritten
after every result. docs/gpu_check.md explains them.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path += [str(ROOT / "tests" / name) for name in ("server", "support")]

from scripts.env.layout import SetupError, comfyui_path, default_version  # noqa: E402


def main() -> int:
    """Run the check, or with --worker one of its processes."""
    if sys.argv[1:] == ["--worker"]:
        from scripts.gpu_checks import worker

        return worker.main()
    from scripts.gpu_checks.supervise import BUDGET, PHASES, Check

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    names = [phase.name for phase in PHASES]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")
    parser.add_argument(
        "--budget",
        type=float,
        default=BUDGET,
        help=f"time limit in seconds (default: {BUDGET:.0f})",
    )
    parser.add_argument(
        "--phases",
        nargs="+",
        choices=names,
        default=names,
        help="run only these phases",
        metavar="NAME",
    )
    parser.add_argument(
        "--work", type=Path, help="folder for temporary weights and clips (default: FOLDER/work)"
    )
    options = parser.parse_args()
    if ROOT.parent.name == "custom_nodes" and (ROOT.parents[1] / "main.py").is_file():
        os.environ.setdefault("COMFYUI_PATH", str(ROOT.parents[1]))
    try:
        comfyui = comfyui_path(default_version())
        if not (comfyui / "main.py").is_file():
            raise SetupError(f"No ComfyUI at {comfyui}: set COMFYUI_PATH to its folder.")
    except SetupError as error:
        parser.error(str(error))
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for old in ("report.md", "report.json", "worker.log", "server*.log"):
        for path in out.glob(old):
            path.unlink()
    work = (options.work or out / "work").resolve() / "gpu_check"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        return Check(comfyui, out, work, options.budget, options.phases).run()
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
