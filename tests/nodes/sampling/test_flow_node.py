"""The flow estimator without weights, as the loader gives it and propagation uses it."""

from __future__ import annotations

import graph
import torch


def load(pack):
    return pack.nodes.loaders.load.LoadFlowModel.execute(
        pack.nodes.loaders.load.BUILTIN_FLOW
    ).result[0]


def test_is_the_first_choice(pack):
    schema = pack.nodes.loaders.load.LoadFlowModel.define_schema()
    assert schema.inputs[0].options[0] == pack.nodes.loaders.load.BUILTIN_FLOW


def test_is_moved_like_any_model(pack):
    import comfy.model_management as mm

    patcher = load(pack)
    assert patcher.model_size() > 0
    mm.load_models_gpu([patcher])
    assert next(patcher.model.parameters()).device == mm.get_torch_device()
    mm.unload_all_models()


def test_propagates(pack):
    images = graph.frames(3)
    images[1], images[2] = images[0].roll(1, dims=1), images[0].roll(2, dims=1)
    node = pack.nodes.sampling.propagate.Propagation
    plan = node.execute(load(pack), images, "0", 0.5, 0.001, 0.05).result[0]
    forward, backward = plan.estimate()
    assert forward.shape == backward.shape == (1, 2, 2, graph.H, graph.W)
    latent = torch.arange(3.0).view(1, 1, 3, 1, 1).expand(1, 4, 3, graph.H, graph.W)
    changed = plan.apply(latent)
    assert (changed[:, :, 0] > 0).float().mean() > 0.3  # some of the next frame has come over
