// The nodes' names end in the pack's, so that a search finds them; on the canvas, where a badge says
// it, that would only cut the titles short.
import { app } from "../../../scripts/app.js";
import { after } from "./after.js";

const PACK = / ?[(（]Upscale-A-Video[)）]$/;
const short = (title) => title.replace(PACK, "");

app.registerExtension({
  name: "UpscaleAVideo.Titles",
  nodeCreated(node) {
    const { nodeData, title } = node.constructor;
    if (!nodeData?.name?.startsWith("UpscaleAVideo")) return;
    const shorten = () => (node.title = short(node.title));
    shorten();
    // A node without a title gets its name again when a workflow is opened.
    after(node, "onConfigure", shorten);
    // ComfyUI saves no title that is the name, so that it is shown in the language of the page.
    after(node, "onSerialize", (saved) => {
      if (saved.title === short(title)) delete saved.title;
    });
  },
});
