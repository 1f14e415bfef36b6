// Shows only those of a node's widgets that its choice uses. A node takes part if one of its inputs
// brings `uav_applies` (nodes/frames/output_size.py): value of that input -> the widgets that count then.
import { app } from "../../../scripts/app.js";
import { after } from "./after.js";

const KEY = "uav_applies";

/** The choosing input's name and its table; undefined if none has one. */
function tableOf(definition) {
  const inputs = { ...definition?.input?.required, ...definition?.input?.optional };
  const found = Object.entries(inputs).find(([, spec]) => spec[1]?.[KEY]);
  return found && [found[0], found[1][1][KEY]];
}

function connect(node, [choice, table]) {
  const widget = (name) => node.widgets.find((widget) => widget.name === name);
  const linked = (name) => node.inputs?.some((i) => i.widget?.name === name && i.link != null);

  const all = [...new Set(Object.values(table).flat())];
  const shown = () => all.filter((name) => !widget(name).hidden).join();

  function show() {
    // A choice that arrives by a link is known only when it runs.
    const used = (linked(choice) ? undefined : table[widget(choice).value]) ?? all;
    for (const name of all) {
      const hidden = !used.includes(name) && !linked(name);
      widget(name).hidden = hidden;
      widget(name).options.hidden = hidden; // where nodes are elements of the page
    }
  }

  function fit() {
    show();
    node.setSize([node.size[0], node.computeSize()[1]]);
  }

  function connected() {
    const before = shown();
    show();
    // While a workflow is opened, the size is the saved one.
    if (shown() !== before && !app.configuringGraph) fit();
  }

  after(widget(choice), "callback", fit);
  after(node, "onConnectionsChange", connected);
  after(node, "onConfigure", show); // opening a workflow, undo, paste: the size is the saved one
  fit();
}

app.registerExtension({
  name: "UpscaleAVideo.Applies",
  nodeCreated(node) {
    const table = tableOf(node.constructor.nodeData);
    if (table) connect(node, table);
  },
});
