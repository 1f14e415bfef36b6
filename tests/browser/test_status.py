"""What the page shows below a node while it runs."""

from __future__ import annotations

NODE = "UpscaleAVideoUpscale"
TEXT = "Sampling: 43%, about 2:10 min left; Following the motion, Decoding, interpolation"
SAY = """([type, text]) => {
    const api = window.comfyAPI.api.api;
    const [node] = window.app.graph.nodes.filter(node => node.type === type);
    const id = String(node.id), prompt_id = "a run";
    const state = {value: 1, max: 9, state: "running", node_id: id, display_node_id: id, prompt_id};
    api.dispatchCustomEvent("execution_start", {prompt_id});
    api.dispatchCustomEvent("executing", id);
    api.dispatchCustomEvent("progress_state", {prompt_id, nodes: {[id]: state}});
    api.dispatchCustomEvent("progress_text", {nodeId: id, text, prompt_id});
    return id;
}"""
BEGIN = """nodes => window.comfyAPI.api.api.dispatchCustomEvent(
    "execution_cached", {nodes, prompt_id: "another run"})"""
SHOWN = """type => {
    const [node] = window.app.graph.nodes.filter(node => node.type === type);
    return node.widgets.find(widget => widget.name === "$$node-text-preview")?.value;
}"""
# Whether a line of the text ends inside a word: where the next letter stands lower.
BROKEN = """text => {
    const spans = [...document.querySelectorAll(".break-all > span")];
    const [span] = spans.filter(span => span.textContent === text);
    const letters = span.firstChild, range = document.createRange(), broken = [];
    const top = at => (range.setStart(letters, at), range.setEnd(letters, at + 1),
        range.getBoundingClientRect().top);
    for (let at = 1; at < text.length; at++) {
        const inside = /\\w/.test(text[at - 1]) && /\\w/.test(text[at]);
        if (inside && top(at) > top(at - 1) + 2) broken.push(text.slice(at - 3, at + 3));
    }
    return broken;
}"""


def test_lines_break_between_words_and_a_new_run_begins_without_them(page):
    page.open_template("1_upscale_a_video")
    number = page.page.evaluate(SAY, [NODE, TEXT])
    assert page.page.evaluate(SHOWN, NODE) == TEXT
    page.page.get_by_text(TEXT).wait_for()
    page.page.wait_for_timeout(500)
    page.picture("status")
    assert page.page.evaluate(BROKEN, TEXT) == []
    page.page.evaluate(BEGIN, [number])
    assert page.page.evaluate(SHOWN, NODE) == TEXT, "it is not run again"
    page.page.evaluate(BEGIN, [])
    assert page.page.evaluate(SHOWN, NODE) == ""
