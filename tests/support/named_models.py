"""The models of others that the shipped workflows name, as empty files."""

import json
from pathlib import Path

from scripts.env.layout import ROOT


def lay_named_models(base: Path) -> None:
    """Lay them into a server's folders, as for a user who has them.

    The page marks the ones that are missing, and asks for their sizes where they can be had.
    """
    for path in (ROOT / "workflows").glob("*.json"):
        for node in json.loads(path.read_text())["nodes"]:
            for model in node["properties"].get("models", ()):
                folder = base / "models" / model["directory"]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / model["name"]).touch()
