// The nodes' names end in the pack's, so that a search finds them; on the canvas, where a badge says
// it, that would only cut the titles short.
import { app } from "../../../scripts/app.js";

const PACK = / ?[(（]Upscale-A-Video[)）]$/;

function shorten(node) {
  if (node.constructor.nodeData?.name?.startsWith("UpscaleAVideo"))
    node.title = node.title.replace(PACK, "");
}

app.registerExtension({
  name: "UpscaleAVideo.Titles",
  nodeCreated: shorten,
  loadedGraphNode: shorten, // opening a workflow gives a node without a title its name again
});
