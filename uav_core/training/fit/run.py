"""A run: trains the U-Net, then the temporal decoder on its samples, then evaluates both.

Both learn at a constant rate for most of their time. Then the state for the next run is saved, and
the rate falls for the rest of the time; the averaged weights of that part are the result. The next
run resumes from the state before the fall, so short runs add up.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ...devices import ways
from ...devices.layout import CHANNELS_LAST, channels_last
from ...errors import InputError
from ...files import save_tensors
from ...models.vae import LATENT_SCALE
from ...sampling import schedule
from ...weights import included
from ..data import pack
from ..data.batches import poor
from ..evaluate import Weights
from ..export import NEGATIVE_TEXT_KEY, NULL_TEXT_KEY
from ..loop import step_rng
from ..losses import hinge_discriminator, hinge_generator
from ..temporal import attention_of_batches, norms_in_plain_layout
from ..unet import mix
from .clips import Clips
from .judges import Critic, Features, distance, stacked
from .latents import (
    NEGATIVE_SHARE,
    Latents,
    Pool,
    Texts,
    encoded,
    sampled,
    undone,
    with_gradient,
)
from .learner import Learner, read_state, write_state
from .look import Gallery
from .norms import Preparation, TrainingWay

log = logging.getLogger(__name__)

Shape = tuple[int, int, int]
"""Clips, frames, and side in degraded pixels, of a batch."""

FLAT = 0.75
"""Share of a stage with a constant learning rate."""
WARM_STEPS = 50
UNET_RATE, DECODER_RATE, CRITIC_RATE = 6e-4, 5e-4, 3e-4
UNET_DECAY, DECODER_DECAY = 0.995, 0.996
OTHER_EVERY = 8
"""Every eighth batch has single frames."""
REFILL = {"unet": 8, "decoder": 12}
"""Steps between the taking of new clips."""
SAVE_SECONDS = 30.0
MEANS_OF = 25
LATE = 20.0
"""Seconds over the budget after which the process ends in any case."""
MOST_TROUBLE = 6
PROFILED = range(104, 111)
"""Steps of a stage that are timed; all have batches of the first shape."""

# Weights of the pixel losses; the mean absolute error has weight 1.
EDGES, MOTION, COARSE = 0.75, 0.75, 1.0
PERCEPTUAL, ADVERSARIAL = 1.0, 0.35
"""Strength of their gradients at the pixels, relative to that of the losses above; the first is the
default of an option."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of clips, batches and pool."""

    frames: int = 8
    side: int = 192
    places: int = 384
    pool: int = 768
    batch: int = 32
    """Clips taken at once; must divide ``pool``."""
    start: int = 6
    """Batches in the pool when a stage starts."""
    unet: tuple[Shape, Shape] = ((48, 8, 32), (192, 1, 48))
    decoder: tuple[Shape, Shape] = ((8, 8, 32), (20, 1, 48))
    critic: int = 32


SIZES = {
    "gpu": Sizes(),
    "cpu": Sizes(4, 128, 32, 64, 4, 2, ((4, 4, 32), (8, 1, 32)), ((1, 4, 32), (3, 1, 32)), 16),
    "tiny": Sizes(3, 64, 8, 8, 2, 1, ((2, 3, 16), (2, 1, 16)), ((1, 3, 16), (1, 1, 16)), 8),
}


def add_options(p: argparse.ArgumentParser) -> None:
    """Add the command-line options of a run."""
    p.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder of the prepared data, or of an unpacked pack",
    )
    p.add_argument(
        "--weights", type=Path, default=included.FOLDER, help="folder of the weights to start from"
    )
    p.add_argument(
        "--run", type=Path, required=True, help="folder of the run; an existing run continues"
    )
    until = p.add_mutually_exclusive_group(required=True)
    until.add_argument("--budget", type=float, help="total wall-clock time in seconds")
    until.add_argument(
        "--steps", type=int, help="total steps of both networks; such a run resumes exactly"
    )
    p.add_argument(
        "--unet-share", type=float, default=0.25, help="the U-Net's share of the time or the steps"
    )
    p.add_argument(
        "--together",
        action="store_true",
        help="train both networks by the losses of the decoded pictures; the U-Net has no stage "
        "of its own then",
    )
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--sizes", choices=SIZES, help="sizes of batches and clips (default: by device)")
    p.add_argument(
        "--precision", choices=("bf16", "fp32"), help="default: bf16 on a GPU, fp32 on a CPU"
    )
    p.add_argument("--workers", type=int, help="number of processes that degrade clips")
    p.add_argument("--held-out", type=int, help="use only this many held-out clips")
    p.add_argument(
        "--save-every", type=int, default=100, help="steps between checkpoints, if --steps is given"
    )
    p.add_argument(
        "--critic-lead", type=int, default=200, help="steps in which only the critic learns"
    )
    p.add_argument("--unet-rate", type=float, default=UNET_RATE, help="learning rate")
    p.add_argument("--decoder-rate", type=float, default=DECODER_RATE, help="learning rate")
    p.add_argument(
        "--perceptual",
        type=float,
        default=PERCEPTUAL,
        help="strength of the perceptual loss relative to the pixel losses",
    )
    p.add_argument("--seed", type=int, default=1)


def run(o: argparse.Namespace) -> None:
    """Train; all results are written to the run's folder."""
    o.run.mkdir(parents=True, exist_ok=True)
    lines = logging.FileHandler(o.run / "train.log")
    lines.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    ours = logging.getLogger(__package__)
    ours.setLevel(logging.INFO)
    ours.addHandler(lines)
    try:
        fit = Fit(o)
        try:
            fit.run()
        finally:
            fit.over.set()
            fit.clips.close()
    except Exception:
        log.exception("the run failed")
        raise
    finally:
        ours.removeHandler(lines)
        lines.close()


# ---------------------------------------------------------------- the place in a run


@dataclass
class Place:
    """Progress of a stage, saved with its state."""

    session: int = 0
    plan: int = 0
    """The session's steps; 0 if it has a time budget instead."""
    done: int = 0
    """Steps of this stage in this session."""
    finished: bool = True
    first: int = 0
    """Number of the first clip of the stage."""
    taken: int = 0
    """Clips taken so far."""
    critic_stopped: bool = False
    """Whether the critic diverged in this session and no longer takes part."""


@dataclass
class Stage:
    """The training of one network."""

    name: str
    learners: dict[str, Learner]
    step: Callable[[Stage, float, float, Shape], dict[str, Tensor]]
    """Makes a step with a rate, its factor and a shape; returns the values to report."""
    shapes: tuple[Shape, Shape]
    rate: float
    latents: Latents
    place: Place = field(default_factory=Place)
    smaller: float = 1.0
    trouble: int = 0

    @property
    def main(self) -> Learner:
        """The network's learner."""
        return self.learners[self.name]

    @property
    def averaged(self) -> list[Learner]:
        """The learners whose averages are the result."""
        return [learner for learner in self.learners.values() if learner.decay is not None]


class Fit:
    """One session of training; see the module."""

    def __init__(self, o: argparse.Namespace) -> None:
        self.began, self.over = time.monotonic(), threading.Event()
        self.o = o
        self.device = torch.device(o.device)
        self.cuda = self.device.type == "cuda"
        if self.cuda and not torch.cuda.is_available():
            raise InputError(f"The device '{o.device}' is not available. Use --device cpu.")
        self.sizes = SIZES[o.sizes or ("gpu" if self.cuda else "cpu")]
        self.bf16 = (o.precision or ("bf16" if self.cuda else "fp32")) == "bf16"
        self.kernels = Preparation(o.device) if self.cuda else None

        self.states = {name: o.run / f"{name}.state" for name in ("unet", "decoder")}
        self.kept = {
            name: read_state(path) if path.is_file() else ({}, {})
            for name, path in self.states.items()
        }
        if "unet" in self.kept["decoder"][0] and not o.together:
            raise InputError(
                f"The run in '{o.run}' trains both networks together. Use --together to continue "
                "it, or another folder."
            )
        self.places = {name: Place(**facts) for name, (_, facts) in self.kept.items()}
        self._choose_session()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        workers = o.workers or max(1, min(14, (cores or 2) - 2))
        s = self.sizes
        self.clips = Clips(o.data, s.places, s.frames, s.side, workers, o.seed, self._clips_from())
        log.info("session %d: starts at clip %d, %d workers", self.session,
                 self.clips.taken, workers)  # fmt: skip

    # ------------------------------------------------------------ start

    def _choose_session(self) -> None:
        """Resume the session in the folder if it has the same plan and has not ended."""
        unet, decoder = self.places["unet"], self.places["decoder"]
        last = max(unet.session, decoder.session)
        plan = self.o.steps or 0
        newest = [p for p in (unet, decoder) if p.session == last]
        # The decoder's stage is the last one, or the only one without a share for the U-Net.
        ended = decoder.session == last and decoder.finished
        goes_on = plan > 0 and last > 0 and not ended and newest[0].plan == plan
        self.session = last if goes_on else last + 1
        taken = max(unet.taken, decoder.taken)
        for name, place in self.places.items():
            if place.session != self.session:
                self.places[name] = Place(self.session, plan, 0, False, taken, taken)
        if self.o.together or self.o.unet_share <= 0:
            self.places["unet"].finished = True  # it has no stage

    def _clips_from(self) -> int:
        """The first clip that the current stage needs."""
        for place in self.places.values():
            if not place.finished:
                return max(place.first, place.taken - self.sizes.pool)
        return self.places["decoder"].taken

    def _load(self) -> None:
        o, device = self.o, self.device
        torch.manual_seed(o.seed)
        if self.cuda:
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark_limit = 3
        self.files = {
            name: o.weights / f"{file}.safetensors"
            for name, file in (("unet", included.UNET), ("decoder", included.VAE_VIDEO))
        }
        given = Weights.load(o.weights)
        self.unet, self.vae, null = given.unet, given.vae, given.texts[NULL_TEXT_KEY]
        self.texts = Texts(null.to(device), given.texts.get(NEGATIVE_TEXT_KEY, null).to(device))
        self.critic, self.features = Critic(self.sizes.critic), Features()
        for module in (self.unet, self.vae, self.critic, self.features):
            module.to(device)
            if self.cuda:
                _lay_channels_last(module)
            else:
                norms_in_plain_layout(module)
        if self.cuda:
            attention_of_batches(self.unet)
        self.table = schedule.alphas_cumprod().to(device)
        s = self.sizes
        self.pool = Pool(s.pool, s.frames, s.side, device)
        held = pack.held_out(o.data, o.held_out)
        self.gallery = Gallery(held, self.features, self.texts, self.autocast, device)
        self.last = {}
        self.laps, self.way = Laps(self.cuda), TrainingWay(triton=False)
        if self.kernels is not None:
            fine = self.kernels.succeeds(60)
            self.way.triton = fine
            ways.use(self.way, self.device.type)
            name = torch.cuda.get_device_name(self.device)
            log.info("%s; norms use %s", name, "Triton" if fine else "PyTorch's operations")
        log.info("ready after %.1f s", self.elapsed)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    def autocast(self) -> torch.autocast:
        """The autocast context, enabled if the run uses bf16."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    # ------------------------------------------------------------ the run

    def run(self) -> None:
        """Load everything, evaluate, train both networks, and evaluate again."""
        self._load()
        o = self.o
        if o.budget:
            threading.Thread(target=self._end_late, daemon=True).start()
        before = self.elapsed
        self._look("start")
        looked = self.elapsed - before
        end = math.inf
        if o.budget:
            # Reserve time for the last evaluation, which takes no longer than the first one.
            end = o.budget - min(1.2 * looked + 4, 0.3 * o.budget)
        now, steps = self.elapsed, o.steps or 0
        share = 0.0 if o.together else o.unet_share
        try:
            self._train("unet", self._unet_stage, round(share * steps), now + share * (end - now))
        except Exception:
            log.exception("training of the U-Net failed; its last saved state is kept")
        self._use_shipped_unet()
        self._train("decoder", self._decoder_stage, round((1 - share) * steps), end)
        self._look("end")
        self.gallery.sheet(o.run / "sheet.jpg")
        log.info("done after %.1f s", self.elapsed)

    def _end_late(self) -> None:
        if self.over.wait(self.o.budget + LATE - self.elapsed):
            return
        log.error("%.0f s over the budget: stopping now; all saved files are kept", LATE)
        self.clips.close()
        os._exit(0)

    def _look(self, name: str) -> None:
        try:
            torch.manual_seed(0)
            self.unet.eval()
            self.gallery.look(name, self.unet, self.vae)
        except Exception:  # a failed evaluation must not end the run
            log.exception("evaluation of the held-out clips failed")

    def _use_shipped_unet(self) -> None:
        """Load the U-Net as saved in half precision, for the decoder to learn on its samples."""
        path = self.o.run / self.files["unet"].name
        source = load_file(path if path.is_file() else self.files["unet"])
        with torch.no_grad():
            for name, p in self.unet.named_parameters():
                p.copy_(source[name])
        self.unet.requires_grad_(False)

    # ------------------------------------------------------------ a stage

    def _train(self, name: str, make: Callable[[], Stage], steps: int, end: float) -> None:
        """Train a stage to its end, unless that was reached; then use the averaged weights."""
        if self.places[name].finished:
            return
        stage = make()
        o, place, main = self.o, stage.place, stage.main
        packed = self.kept[name][0]
        for who, learner in stage.learners.items():
            if who in packed:
                learner.unpack(packed[who])
                learner.restart_average()
        self.last = {who: learner.pack() for who, learner in stage.learners.items()}
        self._fill(stage)
        begin, saved, base = self.elapsed, self.elapsed, None
        meter = Meter(stage, self)
        # cuDNN's search takes seconds for every layer and shape, so use it for the decoder only.
        benchmarks = self.cuda and stage.name == "decoder"
        log.info("%s: %d steps so far, %d clips in pool", stage.name, main.step, self.pool.count)
        while True:
            share = place.done / max(1, steps)
            if o.budget:
                share = (self.elapsed - begin) / max(1e-3, end - begin)
            if share >= 1:
                break
            if share >= FLAT and base is None:
                base = self._keep(stage)
                for learner in stage.averaged:
                    learner.restart_average()
                log.info("%s: the learning rate falls from now on", stage.name)
            factor = min(1.0, (main.step + 1) / WARM_STEPS)
            if base is not None:
                factor *= max(0.02, (1 - share) / (1 - FLAT))
            if place.done and place.done % REFILL[stage.name] == 0:
                self._take(stage, wait=bool(o.steps))
            torch.manual_seed(o.seed * 1_000_003 + main.step)
            shape = stage.shapes[main.step % OTHER_EVERY == OTHER_EVERY - 1]
            clips = max(1, int(shape[0] * stage.smaller))
            torch.backends.cudnn.benchmark = benchmarks and shape is stage.shapes[0]
            self.laps.active = place.done in PROFILED
            problem = ""
            try:
                values = stage.step(stage, stage.rate * factor, factor, (clips, *shape[1:]))
            except torch.OutOfMemoryError:
                stage.smaller /= 2
                problem = f"out of memory; batch size is now {stage.smaller:.3g} times the original"
            except Exception:
                log.exception("%s, step %d", stage.name, main.step)
                problem = "the step failed and is tried again"
                self.way.triton = False  # in case the kernels failed
            finally:
                torch.backends.cudnn.benchmark = False
            if problem:  # outside of ``except``, as the exception would keep tensors alive
                self._recover(stage, problem)
                continue
            if place.done == PROFILED[-1]:
                log.info("%s: a step takes %s", stage.name, self.laps.text())
            place.done += 1
            meter.add(values)
            due = place.done % o.save_every == 0 if o.steps else self.elapsed - saved > SAVE_SECONDS
            if due:
                saved = self.elapsed
                if base is None:
                    self._keep(stage)
                self._ship(stage)
        self._ship(stage)
        place.finished, place.taken = True, self.clips.taken
        self._write(stage, base or {n: x.pack() for n, x in stage.learners.items()})
        log.info("%s: %d steps, %.1f per second", stage.name, place.done,
                 place.done / max(1e-3, self.elapsed - begin))  # fmt: skip
        for learner in stage.averaged:
            learner.swap()

    def _recover(self, stage: Stage, text: str) -> None:
        for learner in stage.learners.values():
            learner.clear()
        stage.trouble += 1
        if stage.trouble > MOST_TROUBLE:
            raise InputError(f"{stage.name}: more than {MOST_TROUBLE} steps failed. See the log.")
        if self.cuda:
            torch.cuda.empty_cache()
        log.warning("%s: %s", stage.name, text)

    def _fill(self, stage: Stage) -> None:
        """Fill the pool with the first clips of the stage, or with those of the saved state."""
        place, s, taken = stage.place, self.sizes, self.clips.taken
        if not place.done:
            place.first = taken
        self.pool.count, self.pool.at = 0, (taken - place.first) % s.pool
        # A run with a budget does not wait for the clips of an earlier one.
        resumed = place.done and not self.o.budget
        wanted = place.taken if resumed else taken + s.start * s.batch
        while self.clips.taken < wanted:
            self._take(stage, wait=True)

    def _take(self, stage: Stage, wait: bool) -> None:
        first = self.clips.taken
        got = self.clips.take(self.sizes.batch, 120.0 if wait else None)
        if got is not None:
            torch.manual_seed(self.o.seed * 1_000_003 + first)
            self.pool.add(*got, stage.latents, step_rng(self.o.seed, first, 7))

    def _keep(self, stage: Stage) -> dict[str, dict[str, Tensor]]:
        """Save the state, and continue from the saved state."""
        stage.place.taken = self.clips.taken
        packed = {name: learner.pack() for name, learner in stage.learners.items()}
        if not all(torch.isfinite(x.float()).all() for p in packed.values() for x in p.values()):
            packed = self.last or packed
            log.error("%s: weights are not finite; going back to the last saved state", stage.name)
        else:
            self._write(stage, packed)
        self.last = packed
        for name, learner in stage.learners.items():
            learner.unpack(packed[name])
        return packed

    def _write(self, stage: Stage, packed: dict[str, dict[str, Tensor]]) -> None:
        write_state(self.states[stage.name], packed, vars(stage.place))

    # ------------------------------------------------------------ the U-Net

    def _unet_stage(self) -> Stage:
        self.vae.requires_grad_(False)
        self.unet.requires_grad_(True)
        learner = Learner(self.unet.named_parameters(), (0.9, 0.99), decay=UNET_DECAY)
        return Stage(
            "unet", {"unet": learner}, self._unet_step, self.sizes.unet, self.o.unet_rate,
            encoded(self.vae, self.autocast), self.places["unet"],
        )  # fmt: skip

    def _unet_step(
        self, stage: Stage, rate: float, factor: float, shape: Shape
    ) -> dict[str, Tensor]:
        b, device = shape[0], self.device
        self.laps()
        _, low, z, poor = self.pool.crop(*shape)
        # Spread evenly over the schedule, so that batches are similar.
        times = (torch.randperm(b, device=device) + torch.rand(b, device=device)) / b
        times = (times * schedule.TRAIN_STEPS).long().clamp_(max=schedule.TRAIN_STEPS - 1)
        few, all_levels = (torch.randint(0, n, (b,), device=device) for n in (61, 251))
        levels = torch.where(torch.rand(b, device=device) < 0.5, few, all_levels)
        noise = torch.randn_like(z)
        noised = mix(low, torch.randn_like(low), self.table[levels])
        noisy = mix(z, noise, self.table[times])
        target = mix(noise, -z, self.table[times])
        text = torch.where(poor[:, None, None], self.texts.negative, self.texts.null)
        with self.autocast():
            v = self.unet(noisy, times, noised, text, levels)
        loss = F.mse_loss(v.float(), target)
        self.laps("forward")
        loss.backward()
        self.laps("backward")
        norm = stage.main.update(rate)
        self.laps("update")
        return {"v": loss.detach(), "norm": norm}

    # ------------------------------------------------------------ the decoder

    def _decoder_stage(self) -> Stage:
        self.unet.eval().requires_grad_(False)
        self.vae.requires_grad_(False)
        self.vae.decoder.requires_grad_(True)
        self.vae.post_quant_conv.requires_grad_(True)
        learns = [(n, p) for n, p in self.vae.named_parameters() if p.requires_grad]
        learner = Learner(learns, (0.9, 0.99), decay=DECODER_DECAY)
        critic = Learner(
            self.critic.named_parameters(), (0.5, 0.99), dict(self.critic.named_buffers())
        )
        learners = {"decoder": learner, "critic": critic}
        latents = sampled(self.unet, self.texts, self.autocast)
        if self.o.together:
            self.unet.requires_grad_(True)
            latents = undone
            learners["unet"] = Learner(
                self.unet.named_parameters(), (0.9, 0.99), decay=DECODER_DECAY
            )
        return Stage(
            "decoder", learners, self._decoder_step, self.sizes.decoder, self.o.decoder_rate,
            latents, self.places["decoder"],
        )  # fmt: skip

    def _decoder_step(
        self, stage: Stage, rate: float, factor: float, shape: Shape
    ) -> dict[str, Tensor]:
        _, t, k = shape
        self.laps()
        clean, low, z, negative = self.pool.crop(*shape)
        rng = step_rng(self.o.seed, stage.main.step, 3)
        critic, unet = stage.learners["critic"], stage.learners.get("unet")
        with self.autocast():
            if unet is not None:
                for i in np.flatnonzero(rng.random(len(clean)) < NEGATIVE_SHARE):
                    clean[i], negative[i] = poor(clean[i], rng), True
                z = with_gradient(self.unet, self.texts, low, negative, rng)
            out = self.vae.decode(z / LATENT_SCALE, low)
        self.laps("forward")
        # Gradients of each loss at the pixels, scaled so that they do not depend on its units.
        x = out.detach().requires_grad_()
        parts = pixel_losses(x, clean)
        wanted = pull(sum(parts.values()), x)
        strength = wanted.square().mean().sqrt()

        def cut(clips: Tensor) -> Tensor:
            # Shift by a random offset below the stride of the features; the size stays the same.
            frames = clips.transpose(1, 2).flatten(0, 1)
            return frames[..., dy : dy + 4 * k - 3, dx : dx + 4 * k - 3]

        dy, dx = (int(v) for v in rng.integers(0, 4, 2))
        with self.autocast():
            with torch.no_grad():
                truth = self.features(cut(clean))
            perceptual = distance(self.features(cut(x)), truth)
        wanted = wanted + self.o.perceptual * scaled(pull(perceptual, x), strength)
        self.laps("losses")

        count = max(1, min(2, t // 3))
        start = int(rng.integers(0, t - 3 * count + 1)) if t >= 3 else 0
        lead = max(1, self.o.critic_lead)
        ramp = 0.0 if stage.place.critic_stopped else min(1.0, max(0.0, critic.step / lead - 1))
        report: dict[str, Tensor] = {}
        if ramp > 0:
            self.critic.prepare(False)
            with self.autocast():
                judged = hinge_generator(self.critic(stacked(x, start, count)))
            # On the judged frames as strong as the pixel losses.
            share = min(1.0, 3 * count / t) ** 0.5
            wanted = wanted + ADVERSARIAL * ramp * scaled(pull(judged, x), share * strength)
            report["adversarial"] = judged.detach()
        self.laps("critic's view")
        out.backward(wanted)
        self.laps("backward")
        report["norm"] = stage.main.update(rate)
        if unet is not None:
            unet.update(self.o.unet_rate * factor)
        self.laps("update")
        if not stage.place.critic_stopped:
            self.critic.prepare(True)
            with self.autocast():
                real, fake = (self.critic(stacked(c, start, count)) for c in (clean, out.detach()))
            loss = hinge_discriminator(real, fake)
            loss.backward()
            critic.update(CRITIC_RATE * max(0.25, factor))
            report["critic"] = loss.detach()
        self.laps("critic")
        return {
            **{name: value.detach() for name, value in parts.items()},
            "perceptual": perceptual.detach(),
            **report,
        }

    # ------------------------------------------------------------ files

    def _ship(self, stage: Stage) -> None:
        """Write the averaged weights of the stage's networks."""
        for name in self.files:
            if name in stage.learners:
                self._write_average(name, stage.learners[name])

    def _write_average(self, name: str, learner: Learner) -> None:
        """Write averaged weights with the names, types and order of the original file."""
        path, original = self.o.run / self.files[name].name, self.files[name]
        with safe_open(original, "pt") as file:
            metadata = file.metadata()
        new, averages = {}, learner.averages()
        for key, value in load_file(original).items():
            x = averages.get(key, value).detach().float().cpu().to(value.dtype).contiguous()
            if not torch.isfinite(x).all():
                log.error("%s has values that are not finite: %s is not written", key, path.name)
                return
            new[key] = x
        save_tensors(path, new, metadata)


def _lay_channels_last(module: nn.Module) -> None:
    """Convert the weights of convolutions to channels-last layout."""
    for p in (*module.parameters(), *module.buffers()):
        if p.ndim in CHANNELS_LAST:
            p.data = channels_last(p.data)


def pixel_losses(x: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Losses of clips (b, 3, t, h, w): pixels, edges, changes over time, and coarse colours."""
    d = x - clean
    flat = d.transpose(1, 2).flatten(0, 1)
    return {
        "l1": (d.square() + 1e-6).sqrt().mean(),
        "edges": EDGES * (d.diff(dim=-1).abs().mean() + d.diff(dim=-2).abs().mean()),
        "motion": MOTION * (d.diff(dim=2).abs().mean() if d.shape[2] > 1 else d.new_zeros(())),
        "coarse": COARSE
        * (F.avg_pool2d(flat, 4).abs().mean() + F.avg_pool2d(flat, 16).abs().mean()),
    }


def pull(loss: Tensor | int, x: Tensor) -> Tensor:
    """Gradient of the loss at the pixels ``x``."""
    assert isinstance(loss, Tensor)
    return torch.autograd.grad(loss, x)[0].float()


def scaled(gradient: Tensor, strength: Tensor) -> Tensor:
    """The gradient, scaled to a root mean square of ``strength``."""
    return gradient * (strength / (gradient.square().mean().sqrt() + 1e-12))


class Laps:
    """Times of the parts of a step, on a device that works asynchronously."""

    def __init__(self, cuda: bool) -> None:
        self.cuda, self.active = cuda, False
        self.last, self.sums, self.count = 0.0, dict[str, float](), 0

    def __call__(self, name: str = "") -> None:
        """Add the time since the last call to ``name``; without a name a step begins."""
        if not self.active:
            return
        if self.cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        if name:
            self.sums[name] = self.sums.get(name, 0.0) + now - self.last
        else:
            self.count += 1
        self.last = now

    def text(self) -> str:
        """Mean milliseconds of every part of a step; resets the sums."""
        words = [f"{name} {1e3 * t / max(1, self.count):.1f}" for name, t in self.sums.items()]
        self.sums, self.count = {}, 0
        return ", ".join(words) + " ms"


class Meter:
    """Means of the steps' reports, read only every few steps, as reading waits for the device."""

    def __init__(self, stage: Stage, fit: Fit) -> None:
        self.name, self.place, self.fit = stage.name, stage.place, fit
        self.held: dict[str, list[Tensor]] = {}
        self.count, self.since = stage.place.done, time.monotonic()

    def add(self, values: dict[str, Tensor]) -> None:
        """Add the report of one step."""
        for name, value in values.items():
            self.held.setdefault(name, []).append(value)
        self.count += 1
        if self.count % MEANS_OF:
            return
        means = {
            n: float(torch.stack([x.float() for x in v]).nanmean()) for n, v in self.held.items()
        }
        bad = sum(int((~torch.isfinite(torch.stack(v))).sum()) for v in self.held.values())
        pace = (time.monotonic() - self.since) / MEANS_OF
        self.since, self.held = time.monotonic(), {}
        memory = torch.cuda.max_memory_allocated() / 2**30 if self.fit.cuda else 0
        words = " ".join(f"{n} {v:.4f}" for n, v in means.items())
        log.info(
            "[%5.1f] %s %d: %s | %.0f ms per step, %d clips taken, %.1f GiB%s",
            self.fit.elapsed, self.name, self.count, words, 1e3 * pace,
            self.fit.clips.taken, memory, f", {bad} NOT FINITE" if bad else "",
        )  # fmt: skip
        judge = means.get("critic")
        if judge is not None and not judge < 8:
            log.warning("the critic diverges (loss %.3g) and is stopped for this run", judge)
            self.place.critic_stopped = True
