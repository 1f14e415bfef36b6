// The nodes of the open workflow, and the text that ComfyUI's page shows below one.
import { app } from "../../../scripts/app.js";

const TEXT = "$$node-text-preview";

/**
 * Every node of a graph and of the subgraphs in it, as [id, node]. The id is that of prompts and
 * events: "4:1" is the node 1 in the subgraph that the node 4 stands for.
 */
export function* nodesOf(graph = app.rootGraph ?? app.graph, before = "") {
  for (const node of graph?.nodes ?? []) {
    const id = `${before}${node.id}`;
    yield [id, node];
    if (node.subgraph) yield* nodesOf(node.subgraph, `${id}:`);
  }
}

/** The widget with the text below a node; undefined if it has had none. */
export const textOf = (node) => node.widgets?.find((widget) => widget.name === TEXT);
