// The text below our nodes while they run. A node that runs again begins without that of its last run, and
// lines are broken between words: ComfyUI's page breaks them anywhere, as it does with long addresses.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { nodesOf, textOf } from "./nodes.js";

const OURS = "UpscaleAVideo";
const AFTER_DRAWING = 100; // ms

/** The texts of our nodes, as [id of the node, its widget]. */
function texts() {
  return [...nodesOf()]
    .filter(([, node]) => node.type?.startsWith(OURS))
    .map(([id, node]) => [id, textOf(node)])
    .filter(([, widget]) => widget);
}

function setText(id, text) {
  for (const [found, widget] of texts()) if (found === String(id)) widget.value = text;
}

const bare = (text) => String(text).replace(/\s/g, "");

function breakBetweenWords() {
  const ours = new Set(texts().map(([, widget]) => bare(widget.value)));
  for (const line of document.querySelectorAll(".break-all > span")) {
    if (!ours.has(bare(line.textContent))) continue;
    Object.assign(line.parentElement.style, { wordBreak: "normal", overflowWrap: "anywhere" });
  }
}

app.registerExtension({
  name: "UpscaleAVideo.Status",
  setup() {
    api.addEventListener("progress_text", () => setTimeout(breakBetweenWords, AFTER_DRAWING));
    // Only what is run loses its text: what is kept of the last run, or not asked for, is still true.
    // A node that is made of others is told of once for each of them; the first time is its beginning.
    const begun = new Set();
    api.addEventListener("execution_start", () => begun.clear());
    api.addEventListener("executing", ({ detail: id }) => {
      if (id == null || begun.has(id)) return;
      begun.add(id);
      setText(id, "");
    });
    // If all that a node is made of is kept of the last run, the text comes with its result alone.
    api.addEventListener("executed", ({ detail }) => {
      const text = detail?.output?.text;
      if (text) setText(detail.display_node ?? detail.node, [text].flat().join("\n"));
    });
  },
});
