"""Tokens of 'filename_prefix' that ComfyUI's page replaces when a prompt is sent."""

from __future__ import annotations

import time

SENT = """async prefix => {
    const type = "UpscaleAVideoLongVideo";
    const [node] = window.app.graph.nodes.filter(node => node.type === type);
    const widget = name => node.widgets.find(widget => widget.name === name);
    widget("seed").value = 41;
    widget("filename_prefix").value = prefix;
    const { output, workflow } = await window.app.graphToPrompt();
    return [output[node.id].inputs.filename_prefix, JSON.stringify(workflow).includes(prefix)];
}"""


def test_the_page_replaces_what_only_it_knows(page):
    page.open_template("long_video")
    page.page.wait_for_timeout(1000)  # for the view to come to rest
    prefix = "%date:yyyy-MM%/%UpscaleAVideoLongVideo.seed%_%width%"
    sent, kept = page.page.evaluate(SENT, prefix)
    assert sent == time.strftime("%Y-%m") + "/41_%width%"
    assert kept, "the workflow keeps the tokens"
