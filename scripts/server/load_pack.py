"""Load packs from one folder after the other as ComfyUI does at its start, and report as JSON.

    python load_pack.py COMFYUI FOLDER... [--models FOLDER] [--without MODULE...]

It needs its own process, so that only the pack's imports are seen.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Load the folders and write the report as the last line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--models", type=Path)
    parser.add_argument(
        "--without", nargs="+", default=[], help="modules whose import is made to fail"
    )
    options = parser.parse_args()
    sys.argv = [sys.argv[0], "--cpu"]
    sys.path[0] = str(options.comfyui)
    logging.disable(logging.WARNING)
    nodes: Any = start_comfyui(options.models)
    # ComfyUI's reader of the packs' pyproject.toml.
    config: Any = importlib.import_module("comfy_config.config_parser")
    sys.modules.update(dict.fromkeys(options.without))
    report = []
    for folder in (folder.resolve() for folder in options.folders):
        before, start, cpu = set(sys.modules), time.perf_counter(), time.process_time()
        loaded = asyncio.run(nodes.load_custom_node(str(folder)))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        new = {name.split(".")[0] for name in set(sys.modules) - before}
        new = {name for name in new - sys.stdlib_module_names if not name.startswith(folder.anchor)}
        ids = sorted(n for n in nodes.NODE_CLASS_MAPPINGS if n.startswith("UpscaleAVideo"))
        parsed = config.extract_node_configuration(str(folder))
        report.append(
            {
                "loaded": loaded,
                "seconds": seconds,
                "cpu": cpu,
                "imported": sorted(new),
                "nodes": ids,
                "project": json.loads(parsed.model_dump_json()),
            }
        )
    sys.stdout.write("\n" + json.dumps(report) + "\n")


def start_comfyui(models: Path | None) -> Any:
    """Import ComfyUI's `nodes`, and what its start imports before custom nodes."""
    sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "support"))
    complete: Any = importlib.import_module("torchvision_shim.prestartup_script")
    complete.install()
    importlib.import_module("comfy.options").enable_args_parsing()
    importlib.import_module("utils.extra_config")
    folder_paths: Any = importlib.import_module("folder_paths")
    if models is not None:
        folder_paths.models_dir = str(models)
    for name in ("comfy.utils", "execution", "server"):
        importlib.import_module(name)
    return importlib.import_module("nodes")


if __name__ == "__main__":
    main()
