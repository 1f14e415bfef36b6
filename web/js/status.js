// The text below our nodes while they run. A new run begins without that of the last one, and lines are
// broken between words: ComfyUI's page breaks them anywhere, as it does with long addresses.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const OURS = "UpscaleAVideo";
const TEXT = "$$node-text-preview";
const AFTER_DRAWING = 100; // ms

/** The texts of our nodes, as [id of the node, its widget]. */
function texts() {
  const nodes = app.graph?.nodes ?? [];
  return nodes
    .filter((node) => node.type?.startsWith(OURS))
    .map((node) => [String(node.id), node.widgets?.find((widget) => widget.name === TEXT)])
    .filter(([, widget]) => widget);
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
    // Sent once a run begins. What is kept of the last one is not run again and keeps its text.
    api.addEventListener("execution_cached", ({ detail }) => {
      const kept = new Set((detail?.nodes ?? []).map(String));
      for (const [id, widget] of texts()) if (!kept.has(id)) widget.value = "";
    });
  },
});
