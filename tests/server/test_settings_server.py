"""The node Settings as servers of both versions describe and run it."""

from __future__ import annotations

import urllib.request

from scripts.env.layout import ROOT
from scripts.server.comfy_server import PACK_FOLDER
from uav_core.sampling import presets

NODE = "UpscaleAVideoSettings"
SCRIPT = "js/settings.js"


def test_the_page_gets_the_table_and_the_script(comfy_server):
    _, options = comfy_server.object_info()[NODE]["input"]["required"]["weights"]
    assert options["uav_presets"] == {"custom": presets.CUSTOM, "table": presets.table()}
    path = f"/extensions/{PACK_FOLDER}/{SCRIPT}"
    assert path in comfy_server.get("/extensions")
    with urllib.request.urlopen(comfy_server.url + path, timeout=30) as answer:
        script = answer.read().decode()
    assert script == (ROOT / "web" / SCRIPT).read_text()
    # The table is not written a second time.
    assert not [name for name in presets.LOOKS["included"] if name in script]


def test_without_a_page_the_values_count_and_the_node_says_so(comfy_server):
    values = presets.settings(presets.INCLUDED)
    inputs = {"weights": presets.INCLUDED, "look": "creative", "speed": "best", **values}
    shown = {"class_type": "PreviewAny", "inputs": {"source": ["1", 2]}}
    prompt = {"1": {"class_type": NODE, "inputs": inputs}, "2": shown}
    entry = comfy_server.run(prompt)
    assert entry["outputs"]["2"]["text"] == [str(values["steps"])]
    log = comfy_server.log_text()
    assert "guidance 1.0 is used instead of 3.0" in log
    assert "self_ensemble False is used instead of True" in log
