// Presets on a node's widgets: choosing one fills the values in, changing a value by hand turns the
// choice to custom. A node takes part if one of its inputs brings `uav_presets` (nodes/sampling/presets.py):
//   custom  the choice of no preset
//   table   value of that input -> choosing widget -> its choice -> widget -> value
// Only what a person does calls a widget's callback: opening a workflow and undo put values back
// without it, so nothing is overwritten then.
// A chooser on a subgraph's node calls nothing inside: there the values are filled in when they are sent.
import { app } from "../../../scripts/app.js";
import { after } from "./after.js";
import { nodesOf, textOf } from "./nodes.js";

const KEY = "uav_presets";

/** The input that brings the presets, and these; undefined if none does. */
function presetsOf(definition) {
  const inputs = { ...definition?.input?.required, ...definition?.input?.optional };
  for (const [name, spec] of Object.entries(inputs)) {
    if (spec[1]?.[KEY]) return { kind: name, ...spec[1][KEY] };
  }
}

function connect(node, { kind, custom, table }) {
  const widget = (name) => node.widgets.find((widget) => widget.name === name);
  const valuesOf = (chooser) => table[widget(kind).value]?.[chooser][widget(chooser).value];
  const choosers = Object.keys(Object.values(table)[0]);

  function fill(chooser) {
    for (const [name, value] of Object.entries(valuesOf(chooser) ?? {})) widget(name).value = value;
    node.setDirtyCanvas(true, true);
  }

  function compare(chooser) {
    const named = Object.entries(valuesOf(chooser) ?? {});
    if (named.every(([name, value]) => widget(name).value === value)) return;
    widget(chooser).value = custom;
    node.setDirtyCanvas(true, true);
  }

  after(widget(kind), "callback", () => choosers.forEach(fill));
  for (const chooser of choosers) {
    after(widget(chooser), "callback", () => fill(chooser));
    const [choices] = Object.values(table);
    for (const name of Object.keys(Object.values(choices[chooser])[0])) {
      after(widget(name), "callback", () => compare(chooser));
    }
  }

  // The text may say what to connect. Connecting it does not run this node again.
  after(node, "onConnectionsChange", () => {
    const text = textOf(node);
    if (text) text.value = "";
  });
}

/** Fill in what is sent for a node, where a chooser arrives from outside with another choice. */
function fillSent(sent, node, { kind, table }) {
  const held = (name) => node.widgets.find((widget) => widget.name === name)?.value;
  for (const [chooser, choices] of Object.entries(table[sent[kind]] ?? {})) {
    if (sent[chooser] === held(chooser) && sent[kind] === held(kind)) continue;
    for (const [name, value] of Object.entries(choices[sent[chooser]] ?? {})) {
      // Other values are links, or come from outside as well.
      if (sent[name] === held(name)) sent[name] = value;
    }
  }
}

app.registerExtension({
  name: "UpscaleAVideo.Settings",
  nodeCreated(node) {
    const presets = presetsOf(node.constructor.nodeData);
    if (presets) connect(node, presets);
  },
  setup() {
    const before = app.graphToPrompt;
    app.graphToPrompt = async function (...args) {
      const prompt = await before.apply(this, args);
      for (const [id, node] of nodesOf(args[0])) {
        const presets = presetsOf(node.constructor.nodeData);
        const sent = presets && prompt?.output?.[id]?.inputs;
        if (sent) fillSent(sent, node, presets);
      }
      return prompt;
    };
  },
});
