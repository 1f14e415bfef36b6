"""ComfyUI's node TorchCompileModel on the temporal U-Net."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

import graph
import torch
from torch import Tensor
from torch.utils._triton import has_triton

from bench.measure.compare import relative_difference, seconds
from uav_core.weights import included

from .items import CheckFailedError, Item, NotPossibleError, Values, check_at_most
from .loaders import HALF
from .place import Place
from .small import sample_inputs

FRAMES = 10
"""Two segments; the second one uses what was compiled for the first."""
TINY_SIZE = (FRAMES, 16, 24)
GUIDANCE = 1.5
"""Above 1, so that both texts run in one pass: *aot_eager*, used on a CPU, fails in group norms of
a batch of one, as PyTorch reports a wrong layout to the compiler."""


def items(place: Place) -> Iterator[Item]:
    """Models with ever more layers, as the time of compiling grows with their number."""
    yield Item("few layers of every kind", partial(of_a_file, place, "unet.few"), 12)
    if not place.tiny:
        name = included.UNET + included.MARK
        yield Item("included weights", partial(compiled, place, name), 40)
        yield Item("released size", partial(of_a_file, place, "unet"), 120)


def of_a_file(place: Place, name: str) -> Values:
    """Check a generated U-Net."""
    return compiled(place, place.weights.path(name).name)


@torch.inference_mode()
def compiled(place: Place, name: str) -> Values:
    """Compare samples with and without compiling; reports the numbers of graphs and of breaks."""
    if not place.tiny and not has_triton():
        raise NotPossibleError("inductor needs Triton, which does not work here")
    node: Any = import_module("comfy_extras.nodes_torch_compile").TorchCompileModel
    model = place.pack.nodes.loaders.load.LoadUNet.execute(name, "default").result[0]
    size = TINY_SIZE if place.tiny else (FRAMES, *place.small_size[1:])
    case = {**sample_inputs(model.model.params.context_dim, size), "guidance": GUIDANCE}

    def samples(model: Any) -> Tensor:
        return graph.sample_case(place.pack, model, case).float().cpu()

    plain = samples(model)
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    # A CPU may have no compiler for the C++ that *inductor* writes.
    backend = "aot_eager" if place.tiny else "inductor"
    faster = node.execute(model, backend).result[0]
    values = {"compiling s": seconds(lambda: samples(faster), place.device)}
    graphs = counters["stats"]["unique_graphs"]
    if graphs < 1:
        raise CheckFailedError("nothing was compiled")
    got = samples(faster)
    return {
        **values,
        "graphs": graphs,
        "graph breaks": sum(counters["graph_break"].values()),
        "plain s": seconds(lambda: samples(model), place.device),
        "compiled s": seconds(lambda: samples(faster), place.device),
        **check_at_most("difference", relative_difference(got, plain), HALF),
    }
