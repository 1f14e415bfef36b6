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
BEGIN = """id => {
    const api = window.comfyAPI.api.api;
    api.dispatchCustomEvent("execution_start", {prompt_id: "another run"});
    if (id) api.dispatchCustomEvent("executing", id);
}"""
SHOWN = """type => {
    const [node] = window.app.canvas.graph.nodes.filter(node => node.type === type);
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
    page.page.evaluate(BEGIN, None)
    assert page.page.evaluate(SHOWN, NODE) == TEXT, "it is not run again"
    page.page.evaluate(BEGIN, number)
    assert page.page.evaluate(SHOWN, NODE) == ""


SETTINGS, JOBS = "UpscaleAVideoSettings", "UpscaleAVideoLongVideoJobs"
# The texts below all nodes, in their order.
TEXTS = """() => window.app.graph.nodes.map(node =>
    node.widgets?.find(widget => widget.name === "$$node-text-preview")?.value)"""
CHOOSE = """speed => {
    const { widgets } = window.app.canvas.graph.nodes.find(node => node.type.endsWith("Settings"));
    const widget = widgets.find(widget => widget.name === "speed");
    widget.value = speed;
    widget.callback(speed);
}"""
CONNECT = """([from, slot, to]) => {
    const { nodes } = window.app.graph;
    nodes[from].connect(slot, nodes[to], 0);
}"""
RUN_ONE = """async () => {
    const { canvas, graph, extensionManager } = window.app;
    canvas.deselectAll();
    canvas.selectNode(graph.nodes[3]);
    await extensionManager.command.execute("Comfy.QueueSelectedOutputNodes");
}"""


def test_a_text_is_shown_as_long_as_it_is_true(page, put, enclose, page_server):
    put(SETTINGS, "PreviewAny", "PreviewAny", JOBS, JOBS)
    page.page.evaluate(CONNECT, [0, 2, 1])
    page.page.evaluate(CHOOSE, "best")
    page.run()
    asks, _, _, first, second = page.page.evaluate(TEXTS)
    assert "connect it" in asks and first and second

    # What it asks for is done, after which the node is not run again.
    page.page.evaluate(CONNECT, [0, 5, 2])
    page.run()
    assert page.page.evaluate(SHOWN, SETTINGS) == ""

    # One of two output nodes is run.
    with page.page.expect_response("**/api/prompt") as answered:
        page.page.evaluate(RUN_ONE)
    page_server.wait(answered.value.json()["prompt_id"])
    page.page.wait_for_timeout(500)
    assert page.page.evaluate(TEXTS)[3:] == [first, second]

    # In a subgraph.
    page.page.evaluate("window.app.graph.nodes[2].disconnectInput(0)")
    page.page.evaluate(CHOOSE, "balanced")
    enclose(SETTINGS, "PreviewAny", JOBS)
    page.page.evaluate(CHOOSE, "best")
    page_server.post("/free", {"free_memory": True})  # nothing is kept of the runs above
    page.run()
    assert "connect it" in page.page.evaluate(SHOWN, SETTINGS)
    page.picture("status-subgraph")
    broken = page.page.locator(".break-all > span", has_text="self_ensemble").first
    assert broken.evaluate("line => line.parentElement.style.wordBreak") == "normal"
    page.page.evaluate(CHOOSE, "balanced")
    page.run()
    assert page.page.evaluate(SHOWN, SETTINGS) == ""
    assert page.complaints == []


def test_a_report_stays_when_all_is_kept_of_the_last_run(page):
    page.open_template("1_upscale_a_video")
    page.set_widget("LoadVideo", "file", "small.mp4")
    page.set_widget(NODE, "quality", "draft")
    page.run()
    report = page.page.evaluate(SHOWN, NODE)
    assert "frames" in report
    page.run()
    assert page.page.evaluate(SHOWN, NODE) == report
    assert page.complaints == []
