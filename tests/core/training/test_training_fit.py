"""Training that goes on: with small networks, but with its real processes, files and losses."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import TRAINED_UNET
from torch import Tensor, nn

from uav_core.devices import norms as device_norms
from uav_core.devices import ways
from uav_core.models.temporal import TemporalAttention
from uav_core.models.unet import TemporalUNet
from uav_core.models.vae import TemporalVAE, VAEParams
from uav_core.training import export
from uav_core.training.data.clips import ClipSource
from uav_core.training.fit import clips as clips_module
from uav_core.training.fit import norms
from uav_core.training.fit import run as fit
from uav_core.training.fit.clips import Clips, make_clip
from uav_core.training.fit.judges import Critic, Features, distance, stacked
from uav_core.training.fit.learner import Learner, read_state, write_state
from uav_core.training.temporal import attention_of_batches, norms_in_plain_layout
from uav_core.training.unet import TextEmbeddings
from uav_core.weights import included

VAE = VAEParams(channels=(32, 32, 32), resnets=1, temporal=True, condition_channels=32)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Small networks under the names of the included ones."""
    root = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name, module in (
        (included.UNET, TemporalUNet(TRAINED_UNET)),
        (included.VAE_VIDEO, TemporalVAE(VAE)),
        (included.TEXT, TextEmbeddings(8, TRAINED_UNET.context_dim)),
    ):
        path = root / f"{name}.safetensors"
        export.write(path, dict(module.state_dict()), torch.float16)
    return root


def options(data: Path, weights: Path, folder: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    fit.add_options(parser)
    given = f"--data {data} --weights {weights} --run {folder} --device cpu --sizes tiny"
    short = "--held-out 0 --critic-lead 1 --workers 1 --unet-share 0.5"
    return parser.parse_args([*given.split(), *short.split(), *more])


# ---------------------------------------------------------------- the device's way


@pytest.mark.parametrize("channels", [64, 96])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_norms_of_training_have_pytorchs_results_and_gradients(channels, dtype, most):
    assert norms.check(torch.device("cpu"), channels, dtype, False) < most


def inputs(b: int) -> tuple[Tensor, ...]:
    latent, low_res = torch.randn(b, 4, 3, 8, 8), torch.randn(b, 3, 3, 8, 8)
    return latent, torch.full((b,), 500), low_res, torch.randn(b, 8, 24), torch.full((b,), 20)


def gradients(unet: TemporalUNet, given: tuple[Tensor, ...]) -> list[Tensor]:
    unet.zero_grad()
    unet(*given).square().mean().backward()
    return [p.grad.clone() for p in unet.parameters() if p.grad is not None]


def test_attention_of_batches_changes_no_gradient():
    unet, given = TemporalUNet(TRAINED_UNET), inputs(3)
    norms_in_plain_layout(unet)
    plain = gradients(unet, given)
    attention_of_batches(unet)
    assert any("forward" in vars(m) for m in unet.modules() if isinstance(m, TemporalAttention))
    for a, b in zip(plain, gradients(unet, given), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_the_way_of_training_changes_no_gradient(monkeypatch):
    unet, given = TemporalUNet(TRAINED_UNET), inputs(2)
    way = norms.TrainingWay(triton=False)
    served = []
    one = way._norm
    monkeypatch.setattr(way, "_norm", lambda *a: served.append(1) or one(*a))
    ways.use(way, "cpu")

    # Training has kernels of its own, checked where a failure does no harm.
    def asked(_: torch.device) -> bool:
        raise AssertionError("the kernels of inference are tried")

    monkeypatch.setattr(device_norms, "has_kernels", asked)
    try:
        fused = gradients(unet, given)
        with torch.no_grad():
            unet(*given)
    finally:
        ways._other.clear()
    assert len(served) > 20
    norms_in_plain_layout(unet)
    for a, b in zip(fused, gradients(unet, given), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


# ---------------------------------------------------------------- learners


def learner(**kwargs) -> tuple[nn.Module, Learner]:
    layer = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1))
    return layer, Learner(layer.named_parameters(), (0.9, 0.99), **kwargs)


def test_a_learner_is_adam_as_long_as_gradients_are_usual():
    layer, mine = learner()
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1))
    other.load_state_dict(layer.state_dict())
    adam = torch.optim.Adam(other.parameters(), 1e-2, (0.9, 0.99))
    x = torch.randn(2, 3, 6, 6)
    for _ in range(5):
        for module in (layer, other):
            module(x).square().mean().backward()
        mine.update(1e-2)
        adam.step()
        adam.zero_grad()
    for a, b in zip(layer.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_gradient_that_is_not_finite_adds_nothing():
    layer, mine = learner()
    before = [p.clone() for p in layer.parameters()]
    (layer(torch.randn(1, 3, 4, 4)).sum() * float("nan")).backward()
    assert not torch.isfinite(mine.update(1e-2))
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), before, strict=True))


def test_what_is_kept_goes_on_and_is_small(tmp_path):
    layer, mine = learner(decay=0.9)
    for _ in range(3):
        layer(torch.randn(1, 3, 4, 4)).square().sum().backward()
        mine.update(1e-2)
    packed = mine.pack()
    write_state(tmp_path / "x.state", {"x": packed}, {"done": 3})
    again, facts = read_state(tmp_path / "x.state")
    assert facts == {"done": 3}
    _, other = learner()
    other.unpack(again["x"])
    assert other.step == 3
    for a, b in zip(mine.live, other.live, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-6)
    for a, b in zip(mine.second, other.second, strict=True):
        assert torch.allclose(a, b, rtol=0.1)
    # Kept once more, it stays what it was.
    for name, value in other.pack().items():
        assert torch.allclose(value.float(), packed[name].float(), atol=1), name
    count = sum(p.numel() for p in mine.live)
    assert sum(x.nbytes for n, x in packed.items() if "/" in n) == 3 * count


# ---------------------------------------------------------------- clips


def workers_of(clips: Clips) -> list[int]:
    """The processes that make clips, without the one that starts them."""
    children = Path(f"/proc/{clips.process.pid}/task/{clips.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of processes")
def test_clips_come_in_order_whoever_dies(data, caplog):
    clips, taken = Clips(data, 3, 2, 64, workers=2, seed=5, first=3), []

    def take(count: int) -> None:
        batch = clips.take(count, wait=120)
        assert batch is not None
        taken.extend(zip(*batch, strict=True))

    try:
        take(2)
        for victim in (lambda: clips.process.pid, lambda: workers_of(clips)[0]):
            os.kill(victim(), signal.SIGKILL)
            # More than may be on the way: pipes and queues hold a dozen.
            for _ in range(10):
                take(3)
    finally:
        clips.close()
    assert clips.process.poll() is not None
    assert caplog.text.count("ended with exit code") == 2
    source = ClipSource(data)
    for n in (3, 20, 40, 64):
        for got, wanted in zip(taken[n - 3], make_clip(source, 5, 2, 64, n), strict=True):
            assert np.array_equal(got, wanted)


def test_little_shared_memory_takes_fewer_workers(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(clips_module, "SHARED", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000_000))
    assert clips_module.with_room(14, 1_000_000) == 3
    assert "3 instead of 14 workers" in caplog.text
    assert clips_module.with_room(2, 1_000_000) == 2 and clips_module.with_room(8, 10**9) == 1


# ---------------------------------------------------------------- judges


def test_features_tell_pictures_apart_and_have_gradients():
    features, x = Features(), torch.rand(1, 3, 32, 32) * 2 - 1
    soft = torch.nn.functional.avg_pool2d(x, 3, 1, 1).requires_grad_()
    assert float(distance(features(x), features(x))) == 0
    near = distance(features(x), features(0.9 * x + 0.1 * soft))
    far = distance(features(x), features(soft))
    assert 0 < float(near.detach()) < float(far.detach())
    far.backward()
    assert soft.grad is not None and soft.grad.abs().max() > 0


def test_the_critic_judges_every_pixel_and_learns_only_when_told():
    critic = Critic(8)
    x = stacked(torch.randn(2, 3, 6, 16, 24), 0, 2)
    assert x.shape == (4, 9, 16, 24)
    critic.prepare(False)
    judged = critic(x.requires_grad_())
    assert judged.shape == (4, 1, 16, 24)
    judged.mean().backward()
    assert all(p.grad is None for p in critic.parameters())
    critic.prepare(True)
    critic(x.detach()).mean().backward()
    assert all(p.grad is not None for p in critic.parameters())


# ---------------------------------------------------------------- runs


class Killed(BaseException):
    """In place of a signal."""


class ClipsHere:
    """The same clips without processes, whose start takes seconds."""

    def __init__(
        self, data: Path, places: int, frames: int, size: int, workers: int, seed: int, first: int
    ) -> None:
        self.sizes, self.source, self.taken = (seed, frames, size), ClipSource(data), first

    def take(self, count: int, wait: float | None = None) -> tuple[np.ndarray, ...]:
        numbers = range(self.taken, self.taken + count)
        self.taken += count
        made = [make_clip(self.source, *self.sizes, n) for n in numbers]
        return tuple(np.stack(part) for part in zip(*made, strict=True))

    def close(self) -> None:
        pass


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(fit, "Clips", ClipsHere)


STEPS = ("--steps", "8", "--save-every", "1")


@pytest.fixture(scope="module", params=[STEPS, (*STEPS, "--together")], ids=["apart", "together"])
def undisturbed(data, weights, tmp_path_factory, request) -> tuple[Path, tuple[str, ...]]:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "Clips", ClipsHere)
        fit.run(options(data, weights, folder, *request.param))
    return folder, request.param


def contents(folder: Path) -> dict[str, dict[str, Tensor]]:
    return {p.name: load_file(p) for p in sorted(folder.iterdir()) if "uav" in p.name} | {
        p.stem: read_state(p)[0][p.stem] for p in sorted(folder.glob("*.state"))
    }


@pytest.mark.parametrize(("stage", "kept"), [("unet", 1), ("decoder", 2)])
def test_a_killed_run_ends_where_an_undisturbed_one_does(
    data, weights, undisturbed, tmp_path, monkeypatch, here, stage, kept
):
    folder, given = undisturbed
    stages = ["decoder"] if "--together" in given else ["unet", "decoder"]
    if stage not in stages:
        pytest.skip("together there is no such stage")
    write, left = fit.write_state, [kept]

    def write_and_die(path: Path, *given) -> None:
        write(path, *given)
        left[0] -= path.stem == stage
        if not left[0]:
            raise Killed

    monkeypatch.setattr(fit, "write_state", write_and_die)
    parts = options(data, weights, tmp_path / "parts", *given)
    with pytest.raises(Killed):
        fit.run(parts)
    monkeypatch.setattr(fit, "write_state", write)
    fit.run(parts)
    wanted, found = contents(folder), contents(tmp_path / "parts")
    assert list(wanted) == list(found)
    for file, tensors in wanted.items():
        for name, value in tensors.items():
            # Bytes of the optimiser's scale may differ by one.
            most = 1.0 if value.dtype == torch.uint8 else 4e-4
            gap = (value.float() - found[file][name].float()).abs().max()
            assert gap <= most, (file, name)
    start = load_file(weights / f"{included.VAE_VIDEO}.safetensors")
    end = wanted[f"{included.VAE_VIDEO}.safetensors"]
    moved = {n.split(".")[0] for n, v in end.items() if not torch.equal(v, start[n])}
    assert "decoder" in moved and moved <= {"decoder", "post_quant_conv"}
    facts = [read_state(tmp_path / f"parts/{n}.state")[1] for n in stages]
    assert {f["session"] for f in facts} == {1} and all(f["finished"] for f in facts)


def test_together_the_pictures_train_the_unet(data, weights, tmp_path, here):
    o = options(data, weights, tmp_path, "--steps", "2", "--unet-share", "0", "--together")
    fit.run(o)
    assert not (tmp_path / "unet.state").exists()
    for file in (included.UNET, included.VAE_VIDEO):
        start, end = (load_file(x / f"{file}.safetensors") for x in (weights, tmp_path))
        moved = [n for n, x in end.items() if not torch.equal(x, start[n])]
        assert len(moved) > 20 and all(torch.isfinite(end[n]).all() for n in moved), file


def test_runs_by_time_add_up_and_leave_few_files(data, weights, tmp_path):
    for session in (1, 2):
        # However slow the machine: what there is no time for is left out.
        o = options(data, weights, tmp_path / "run", "--budget", "6")
        fit.run(replace_options(o, held_out=1))
        _, facts = read_state(tmp_path / "run" / "decoder.state")
        assert facts["session"] == session and facts["plan"] == 0
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {
        "train.log",
        "sheet.jpg",
        "unet.state",
        "decoder.state",
        "uav_small_unet.safetensors",
        "uav_small_vae_video.safetensors",
    }
    text = (tmp_path / "run" / "train.log").read_text()
    assert "| bicubic |" in text and "| end |" in text


def replace_options(o: argparse.Namespace, **changes) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(o), **changes})


def test_memory_that_runs_out_halves_the_batch(data, weights, tmp_path, monkeypatch, here):
    seen = []
    step = fit.Fit._unet_step

    def hungry(self, stage, rate, factor, shape):
        seen.append(shape[0])
        if shape[0] > 1:
            raise torch.OutOfMemoryError("not a byte left")
        return step(self, stage, rate, factor, shape)

    monkeypatch.setattr(fit.Fit, "_unet_step", hungry)
    fit.run(options(data, weights, tmp_path, "--steps", "4"))
    assert seen == [2, 1, 1]
    assert json.loads(json.dumps(read_state(tmp_path / "unet.state")[1]))["done"] == 2


def test_what_is_not_finite_is_not_kept(data, weights, tmp_path, monkeypatch):
    _, mine = learner(decay=0.5)
    with torch.no_grad():
        mine.live[0].fill_(float("nan"))
    stage = fit.Stage("unet", {"unet": mine}, None, ((1, 1, 1),) * 2, 1.0, None)  # type: ignore[arg-type]
    run = object.__new__(fit.Fit)
    good = {name: torch.zeros_like(x) for name, x in learner()[1].pack().items()}
    run.last, run.states = {"unet": good}, {"unet": tmp_path / "unet.state"}
    monkeypatch.setattr(run, "clips", argparse.Namespace(taken=0), raising=False)
    run._keep(stage)
    assert not (tmp_path / "unet.state").exists()
    assert torch.isfinite(mine.live[0]).all()


def test_a_critic_that_was_stopped_stays_so_after_a_kill(tmp_path):
    stage: Any = SimpleNamespace(name="decoder", place=fit.Place(done=2 * fit.MEANS_OF - 1))
    meter = fit.Meter(stage, cast(Any, SimpleNamespace(elapsed=0.0, cuda=False, clips=stage)))
    stage.taken = 0
    meter.add({"critic": torch.tensor(100.0)})
    assert stage.place.critic_stopped, "the steps before the kill count"
    write_state(tmp_path / "state", {}, vars(stage.place))
    assert fit.Place(**read_state(tmp_path / "state")[1]).critic_stopped
