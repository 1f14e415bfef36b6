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

TINY_SIZE = (3, 16, 24)
"""On a CPU, as in the tests of compiling: *aot_eager* fails in a group norm at frames of 4x4."""


def items(place: Place) -> Iterator[Item]:
    """The included weights first: they compile in less time."""
    name = included.UNET + included.MARK
    yield Item("included weights", partial(compiled, place, name), 60)
    if not place.tiny:  # of as many layers, which is what the time goes by
        yield Item("released size", partial(of_a_file, place), 120)


def of_a_file(place: Place) -> Values:
    """The generated U-Net."""
    return compiled(place, place.weights.path("unet").name)


@torch.inference_mode()
def compiled(place: Place, name: str) -> Values:
    """The same samples as without; the number of graphs is reported."""
    if not place.tiny and not has_triton():
        raise NotPossibleError("inductor needs Triton, which does not work here")
    node: Any = import_module("comfy_extras.nodes_torch_compile").TorchCompileModel
    model = place.pack.nodes.loaders.load.LoadUNet.execute(name, "default").result[0]
    size = TINY_SIZE if place.tiny else place.small_size
    case = sample_inputs(model.model.params.context_dim, size)

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
        "plain s": seconds(lambda: samples(model), place.device),
        "compiled s": seconds(lambda: samples(faster), place.device),
        **check_at_most("difference", relative_difference(got, plain), HALF),
    }
