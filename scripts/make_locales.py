"""Make `locales/en/nodeDefs.json`: the texts of the nodes, in the format of ComfyUI's page.

The other languages have the same keys; their texts are translated by hand. ComfyUI serves all
languages at /i18n.

    python -m scripts.make_locales
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scripts.env.layout import ROOT, comfyui_path, default_version

LOCALES = ROOT / "locales"
# The page adds this input below a seed, and looks up its name with the others.
AFTER = "control_after_generate"

log = logging.getLogger("make_locales")


def node_definitions(schemas: Iterable[Any]) -> dict[str, Any]:
    """The texts of io.Schema objects by node id."""
    return {schema.node_id: definition(schema) for schema in schemas}


def definition(schema: Any) -> dict[str, Any]:
    """Display name and description of a node, names and tooltips of its inputs and outputs."""
    inputs = {}
    for entry in schema.inputs:
        inputs[entry.id] = {"name": entry.display_name or entry.id, "tooltip": entry.tooltip}
        if getattr(entry, AFTER, None):
            inputs[AFTER] = {"name": AFTER.replace("_", " ")}
    outputs = {
        # An output without a name shows its type, which the page translates.
        str(i): {**({"name": out.display_name} if out.display_name else {}), "tooltip": out.tooltip}
        for i, out in enumerate(schema.outputs)
    }
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": inputs,
        "outputs": outputs,
    }


def to_text(definitions: dict[str, Any]) -> str:
    """The content of a locale file."""
    return json.dumps(definitions, indent=2, ensure_ascii=False) + "\n"


def write(path: Path, schemas: Iterable[Any]) -> None:
    """Write the English texts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_text(node_definitions(schemas)), encoding="utf-8")


def main() -> None:
    """Import the pack beside a ComfyUI, and write the English texts."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.argv = [sys.argv[0], "--cpu"]
    sys.path.insert(0, str(comfyui_path(default_version())))
    loader: Any = importlib.import_module("scripts.server.load_pack")
    loader.start_comfyui(None)
    spec = importlib.util.spec_from_file_location(
        "uav_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec and spec.loader
    pack = importlib.util.module_from_spec(spec)
    sys.modules["uav_pack"] = pack
    spec.loader.exec_module(pack)
    path = LOCALES / "en" / "nodeDefs.json"
    write(path, [node.define_schema() for node in pack.nodes.NODES])
    log.info("%s", path.relative_to(ROOT))


if __name__ == "__main__":
    main()
