// The tokens %date:yyyy-MM-dd% and %Node.widget% in the `filename_prefix` of our nodes. ComfyUI's
// page replaces them when it sends a prompt, but for its own nodes alone; the words in the workflow
// stay as they are. The node replaces all others.
import { app } from "../../../scripts/app.js";

const OURS = "UpscaleAVideo";

app.registerExtension({
  name: "UpscaleAVideo.FilenamePrefix",
  nodeCreated(node) {
    if (!node.constructor.nodeData?.name?.startsWith(OURS)) return;
    const widget = node.widgets?.find((widget) => widget.name === "filename_prefix");
    if (!widget) return;
    widget.serializeValue = () =>
      window.comfyAPI?.utils?.applyTextReplacements?.(app, widget.value) ?? widget.value;
  },
});
