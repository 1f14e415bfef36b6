"""Train the networks: ``python -m uav_core.training STAGE ...``.

    python -m uav_core.training.data.sources DATA
    python -m uav_core.training vae     --data DATA --run RUNS/vae --steps 4000
    python -m uav_core.training unet    --data DATA --run RUNS/spatial --vae VAE --layers spatial
    python -m uav_core.training unet    --data DATA --run RUNS/temporal --vae VAE --layers temporal
                                        --init RUNS/spatial --frames 6
    python -m uav_core.training decoder --data DATA --run RUNS/decoder --vae VAE
                                        --unet RUNS/temporal --frames 3
    python -m uav_core.training distil  --data DATA --run RUNS/narrow --width 48 --steps 5000
    python -m uav_core.training fit     --data DATA --run RUNS/fit --budget 300
    python -m uav_core.training pack    --data DATA --out DATA.tar
    python -m uav_core.training export  --vae RUNS/vae --decoder RUNS/decoder
                                        --unet RUNS/temporal --output weights

VAE, ``--init`` and ``--unet`` take a run's folder or a safetensors file, of any network size: with
the released networks the same commands fine-tune at full size. Run a command again to resume it.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError, UpscaleAVideoError
from ..models.unet import TemporalUNet
from ..models.vae import TemporalVAE
from ..sampling.pipeline import load_vae
from ..weights import included
from . import distil, export, unet, vae
from .data import pack
from .data.batches import BatchParams, clean_batch
from .data.clips import ClipSource
from .evaluate import Weights
from .fit.latents import Texts, sampled
from .fit.run import add_options
from .fit.run import run as fit
from .loop import Loop, LoopParams, autocast, step_rng
from .narrow import narrow
from .start import start_as_resize, start_unet
from .temporal import norms_in_plain_layout, save_memory, silence_temporal

log = logging.getLogger("training")

DATA = "folder made by uav_core.training.data.sources"


def main() -> int:
    """Run one stage. Returns 0, or 1 after logging an UpscaleAVideoError."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options = parser().parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        options.stage(options)
    except UpscaleAVideoError as error:
        log.error("%s", error)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m uav_core.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stages = top.add_subparsers(required=True, metavar="stage")

    def stage(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        p = stages.add_parser(name, help=text, description=text)
        p.set_defaults(stage=run)
        p.add_argument("--threads", type=int, help="CPU threads")
        return p

    def looped(
        name: str, run: Any, text: str, lr: float, clips: int, frames: int, size: int = 96
    ) -> argparse.ArgumentParser:
        p = stage(name, run, text)
        p.add_argument("--data", type=Path, required=True, help=DATA)
        p.add_argument("--run", type=Path, required=True, help="folder of this run")
        p.add_argument("--steps", type=int, required=True, help="total number of optimiser steps")
        p.add_argument("--until", type=int, help="stop after this step; resume later")
        p.add_argument("--lr", type=float, default=lr, help="learning rate")
        p.add_argument("--clips", type=int, default=clips, help="clips in a batch")
        p.add_argument("--frames", type=int, default=frames, help="frames in each clip")
        p.add_argument("--size", type=int, default=size, help="side of the clean clips, in pixels")
        p.add_argument("--seed", type=int, default=0)
        p.add_argument("--ema", type=float, default=0.998, help="decay of the averaged weights")
        p.add_argument("--accumulate", type=int, default=1, help="batches in each optimiser step")
        p.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="bf16")
        p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
        p.add_argument("--save-every", type=int, default=200, help="steps between checkpoints")
        p.add_argument(
            "--save-memory", action="store_true", help="save memory by recomputing activations"
        )
        return p

    p = looped("vae", train_vae, "train a per-frame VAE from scratch", 5e-4, clips=6, frames=1)
    p.add_argument("--gradient", type=float, default=0.5, help="weight of the gradient loss")
    text = "train a temporal decoder on top of a VAE"
    p = looped("decoder", train_decoder, text, 5e-4, clips=2, frames=3)
    p.add_argument("--gradient", type=float, default=0.5, help="weight of the gradient loss")
    p.add_argument("--vae", type=Path, required=True, help="the VAE to start from")
    p.add_argument(
        "--unet",
        type=Path,
        help="a U-Net that samples the latents; without one, encoded latents with noise are used",
    )
    p.add_argument("--noise", type=float, default=0.5, help="noise on latents without a U-Net")
    p.add_argument("--guidance", type=float, default=1.0, help="largest guidance used for sampling")
    p.add_argument(
        "--from-noise",
        type=float,
        default=0.5,
        help="share of the latents sampled from noise alone",
    )
    p = looped("unet", train_unet, "train the temporal U-Net", 4e-4, clips=8, frames=1)
    p.add_argument("--vae", type=Path, required=True, help="the VAE whose latents the U-Net learns")
    p.add_argument(
        "--init",
        type=Path,
        help="the U-Net to start from; without one, a small new U-Net is trained",
    )
    p.add_argument("--texts", type=Path, help="file with the text embeddings to start from")
    p.add_argument("--layers", choices=("all", "spatial", "temporal"), default="all")
    text = "train a decoder narrower at full size to copy the given one"
    p = looped("distil", run_distil, text, 1e-3, clips=1, frames=4, size=128)
    p.add_argument(
        "--weights", type=Path, default=included.FOLDER, help="folder of the weights to start from"
    )
    p.add_argument("--width", type=int, required=True, help="number of channels at full size")
    p.add_argument("--pieces", type=int, default=500, help="number of clips to learn from")
    text = "continue training both networks from complete weights, for a time or a number of steps"
    add_options(stage("fit", fit, text))
    p = stage("pack", run_pack, "pack the data that another machine needs into one file")
    p.add_argument("--data", type=Path, required=True, help=DATA)
    p.add_argument("--out", type=Path, required=True, help="the tar file to write")
    p = stage("export", run_export, "write the trained weights as files for use")
    p.add_argument("--vae", type=Path, required=True, help="run of the per-frame VAE")
    p.add_argument("--decoder", type=Path, help="run of the temporal decoder")
    p.add_argument("--unet", type=Path, help="run of the U-Net")
    p.add_argument("--output", type=Path, required=True, help="folder for the safetensors files")
    return top


def settings(o: argparse.Namespace) -> tuple[BatchParams, LoopParams]:
    """The batch and loop parameters from the options of the same names."""
    loop = LoopParams(**{f.name: getattr(o, f.name) for f in fields(LoopParams) if f.name in o})
    return BatchParams(o.clips, o.frames, o.size), loop


def start(o: argparse.Namespace, *modules: nn.Module) -> ClipSource:
    """Move the modules to the device, prepare them for training, and open the data."""
    for module in modules:
        module.to(o.device)
        if o.device == "cpu":
            norms_in_plain_layout(module)
        if o.save_memory:
            save_memory(module)
    return ClipSource(o.data)


def train_vae(o: argparse.Namespace) -> None:
    """Stage 1: the per-frame VAE."""
    torch.manual_seed(o.seed)
    model = TemporalVAE(vae.SMALL_VAE)
    source = start(o, model)
    batch, loop = settings(o)
    rng = step_rng(o.seed, loop.steps)
    start_as_resize(model, clean_batch(source, rng, replace(batch, clips=16)).to(o.device))
    loss = vae.vae_loss(model, source, batch, vae.VAELoss(gradient=o.gradient), loop)
    run = Loop(o.run, model, loss, loop)
    if run.run(o.until):
        vae.normalise_latent(run.average, source, batch)
        export.write(o.run / export.RESULT, run.average.state_dict(), torch.float32)


def train_decoder(o: argparse.Namespace) -> None:
    """Stage 3: the temporal decoder. Without a U-Net it learns from the encoder's latents."""
    torch.manual_seed(o.seed)
    model = load_vae(export.result_of(o.vae))
    if not model.params.temporal:
        model = vae.with_temporal_decoder(model, vae.SMALL_CONDITION)
    model.requires_grad_(True)
    source = start(o, model)
    batch, loop = settings(o)
    if o.unet is None:
        latents = unet.encoded_latents(model, o.noise)
    else:
        sampler, texts = export.load_trained_unet(o.unet)
        sampler.to(o.device)
        negative = texts.get("negative_text_embedding")
        latents = unet.sampled_latents(
            model,
            sampler,
            texts["null_text_embedding"].to(o.device),
            negative=None if negative is None else negative.to(o.device),
            guidance=(1.0, o.guidance),
            from_noise=o.from_noise,
        )
    weights = vae.VAELoss(gradient=o.gradient)
    loss = vae.decoder_loss(model, source, batch, weights, loop, latents)
    run = Loop(o.run, model, loss, loop)
    if run.run(o.until):
        export.write(o.run / export.RESULT, run.average.state_dict(), torch.float32)


def train_unet(o: argparse.Namespace) -> None:
    """Stage 2: the U-Net, or only its temporal or spatial layers."""
    torch.manual_seed(o.seed)
    if o.init is None:
        network = TemporalUNet(unet.SMALL_UNET)
        silence_temporal(network)
        start_unet(network)
        texts = unet.TextEmbeddings(unet.SMALL_TOKENS, network.params.context_dim)
    else:
        network, known = export.load_trained_unet(o.init)
        if o.texts is not None:
            known = export.load_texts(o.texts)
        if "null_text_embedding" not in known:
            raise InputError(
                f"{o.init} has no embedding of the empty text. Give one with --texts: a "
                "safetensors file with 'null_text_embedding' (tokens, dim)."
            )
        texts = unet.TextEmbeddings(*known["null_text_embedding"].shape)
        known.setdefault("negative_text_embedding", known["null_text_embedding"].clone())
        texts.load_state_dict({name: known[name] for name in texts.state_dict()})
    model = unet.UNetWithTexts(network, texts)
    frozen = load_vae(export.result_of(o.vae)).to(o.device)
    source = start(o, model)
    batch, loop = settings(o)
    loss = unet.unet_loss(model, frozen, source, batch, loop, o.layers, learn_texts=o.init is None)
    run = Loop(o.run, model, loss, loop)
    if run.run(o.until):
        export.write(o.run / export.RESULT, export.unet_tensors(run.average), torch.float32)


def run_distil(o: argparse.Namespace) -> None:
    """Train a narrower decoder; at the end the run's folder holds all weights with it."""
    torch.manual_seed(o.seed)
    given = Weights.load(o.weights)
    teacher = given.vae.to(o.device)
    student = narrow(teacher, o.width)
    layers = distil.learning_layers(student)
    source = start(o, layers)
    texts = Texts(*(given.texts[key].to(o.device) for key in export.TEXT_KEYS))
    batch, loop = settings(o)
    latents = sampled(given.unet.to(o.device), texts, partial(autocast, loop))
    piece = distil.pieces_of(teacher, source, latents, batch, loop.seed)
    loss = distil.distillation_loss(layers, piece, o.pieces, loop, batch.clips)
    run = Loop(o.run, layers, loss, loop)
    if run.run(o.until):
        layers.load_state_dict(run.average.state_dict())
        for file in o.weights.glob("*.safetensors"):
            shutil.copy(file, o.run)
        path = o.run / f"{included.VAE_VIDEO}.safetensors"
        export.write(path, student.state_dict(), torch.float16)


def run_pack(o: argparse.Namespace) -> None:
    """Write the media and the held-out clips as one portable file."""
    log.info("%s: %.1f MB", o.out, pack.write(o.data, o.out) / 1e6)


def run_export(o: argparse.Namespace) -> None:
    """Write the finished runs as the weights that the pack ships."""
    for path in export.export(o.output, o.vae, o.decoder, o.unet):
        log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)


if __name__ == "__main__":
    raise SystemExit(main())
