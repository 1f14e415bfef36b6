"""Segment sampler, as one node and as parts: sigmas, sampler, segments on a MODEL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_patcher
import comfy.samplers
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ...uav_core.callbacks import ignore
from ...uav_core.errors import InputError
from ...uav_core.sampling import presets, schedule
from ...uav_core.sampling.ddim import DenoisedDDIM
from ...uav_core.sampling.guidance import WHOLE_RUN, GuidanceRange
from ...uav_core.sampling.ladder import StepDown
from ...uav_core.sampling.noise import LATENT, frame_noise
from ...uav_core.sampling.segments import OVERLAP, SEGMENT_LENGTH, plan_segments
from ...uav_core.values import check_finite
from ..base import settings
from ..base.inputs import check_same_clip, video_latent
from ..base.runtime import check_cancelled, show_status
from ..base.schema import SAMPLING, PropagationSocket, schema
from ..base.summary import RunSummary
from ..model.unet import LOW_RES, NOT_CONDITIONED, NULL_TEXT, UpscaleAVideoModel
from .caches import full_step
from .condition import Conditioning
from .guidance import RangedGuider
from .progress import SegmentProgress
from .propagate import FlowPropagation
from .segments import with_segments


def ddim(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Any = None,
    disable: bool | None = None,
    propagation: FlowPropagation | None = None,
) -> Tensor:
    """DDIM with eta 0, propagating the predicted clean latent at the chosen steps.

    A k-diffusion style sampler function. Unlike a post-CFG hook it does not change the noise
    estimate: only the clean part of the next sample is propagated, as in the paper.
    """
    options = extra_args or {}
    chosen = propagation.steps(len(sigmas) - 1) if propagation else ()
    batch, step = x.new_ones([x.shape[0]]), DenoisedDDIM(sigmas)
    for i in range(len(sigmas) - 1):
        check_cancelled()
        carry = propagation if i in chosen else None
        if carry is not None:
            full_step(options.get("model_options", {}))
        denoised, eps = step.split(x, model(x, sigmas[i] * batch, **options), i)
        if carry is not None:
            denoised = carry.apply(denoised)
        if callback is not None:
            callback(
                {"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised}
            )
        x = step.join(denoised, eps, i)
    return x


class DDIMSampler(comfy.samplers.KSAMPLER):
    """ComfyUI sampler around ``ddim`` that keeps the reference's scale at both ends."""

    def __init__(self, propagation: FlowPropagation | None = None, from_noise: bool = True) -> None:
        super().__init__(ddim, {"propagation": propagation})
        self._from_noise = from_noise

    def max_denoise(self, model_wrap: Any, sigmas: Tensor) -> bool:
        # The reference always starts from unit noise; ComfyUI does so only if the first sigma is
        # the model's largest, which it never is here.
        return self._from_noise

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        from_noise = latent_image is None or not torch.any(latent_image)
        propagation = self.extra_options["propagation"]
        if propagation is not None and propagation.steps(len(sigmas) - 1):
            propagation.check_clip(noise)
        run = DDIMSampler(propagation, from_noise)
        samples = super(DDIMSampler, run).sample(
            model_wrap, sigmas, extra_args, callback, noise, latent_image, *args, **kwargs
        )
        last = sigmas[-1]
        if 0 < last <= model_wrap.inner_model.model_sampling.sigma_min * 1.001:
            samples = DenoisedDDIM(sigmas).end(samples)
        return samples


def check_model(model: Any) -> UpscaleAVideoModel:
    """The model inside a MODEL, if it is the temporal U-Net; InputError otherwise."""
    inner = getattr(model, "model", None)
    if not isinstance(inner, UpscaleAVideoModel):
        raise InputError(
            f"The model is a {type(inner).__name__}: expected the temporal U-Net from 'Load "
            "Temporal U-Net (Upscale-A-Video)'."
        )
    return inner


def check_conditioning(name: str, cond: Conditioning, model: UpscaleAVideoModel) -> None:
    """InputError unless every entry carries low-resolution frames and a text that fits."""
    if not cond:
        raise InputError(f"The {name} conditioning is empty. {NOT_CONDITIONED}")
    for text, options in cond:
        if LOW_RES not in options:
            raise InputError(NOT_CONDITIONED)
        if options.get(NULL_TEXT):
            model.null_text("cpu")
        else:
            model.check_text(text, f"{name} text")


class SegmentSampler(io.ComfyNode):
    """The whole sampler in one node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoSegmentSampler",
            "Segment Sampler (Upscale-A-Video)",
            ("video ksampler", "upscale sampler", "context window sampler"),
            description="Denoises the clip in overlapping segments, with the DDIM sampler of the "
            "reference implementation. Its parts are also separate nodes: Sigmas, Sampler, "
            "Segments on Model.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="The temporal U-Net."),
                io.Conditioning.Input("positive", tooltip="From 'Low-Res Conditioning'."),
                io.Conditioning.Input("negative", tooltip="From 'Low-Res Conditioning'."),
                io.Latent.Input("latent", tooltip="From 'Low-Res Conditioning'."),
                settings.steps_input(
                    "Number of sampling steps. The reference implementation uses 30; more steps "
                    "take more time."
                ),
                settings.guidance_input(
                    "Classifier-free guidance. Higher values are sharper and less faithful; 1 "
                    "ignores the negative text and takes half the time."
                ),
                settings.seed_input(
                    "Seed of the latent's initial noise. The noise of a frame depends only on the "
                    "seed and the frame number."
                ),
                settings.segment_length_input(
                    "Number of frames that the model processes at once. It was trained with 8; "
                    "fewer need less memory."
                ),
                settings.overlap_input(
                    "Number of frames that neighbouring segments share, to hide the transition. "
                    "Must be less than the segment length."
                ),
                PropagationSocket.Input(
                    "propagation",
                    optional=True,
                    tooltip="From 'Flow-Guided Propagation'. If unconnected, nothing is "
                    "propagated.",
                ),
                settings.share_input(
                    "guidance_start",
                    0.0,
                    "Point of the run where guidance begins: 0 is the start, 1 is the end.",
                ),
                settings.share_input(
                    "guidance_end",
                    1.0,
                    "Point of the run where guidance ends. Steps outside the range ignore the "
                    "negative text and take half the time; 0 to 1 guides all steps.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="For 'Temporal VAE Decode'.")],
        )

    @classmethod
    def execute(
        cls,
        model: comfy.model_patcher.ModelPatcher,
        positive: Conditioning,
        negative: Conditioning,
        latent: dict[str, Any],
        steps: int,
        guidance: float,
        seed: int,
        segment_length: int,
        overlap: int,
        propagation: FlowPropagation | None = None,
        guidance_start: float = 0.0,
        guidance_end: float = 1.0,
    ) -> io.NodeOutput:
        samples = video_latent(latent)
        t, h, w = samples.shape[2:]
        summary = RunSummary()
        unfit = told_unfit(cls, model, steps, guidance)
        result = sample_segments(
            model,
            positive,
            negative,
            samples,
            frame_noise(seed, LATENT, range(t), samples.shape[1], h, w),
            steps=steps,
            guidance=guidance,
            guided=GuidanceRange(guidance_start, guidance_end),
            seed=seed,
            segment_length=segment_length,
            overlap=overlap,
            propagation=propagation,
            noise_mask=latent.get("noise_mask"),
            on_step=summary.steps.append,
        )
        show_status(cls, "\n".join(filter(None, (summary.to_text("Sampled", t), unfit))))
        return io.NodeOutput({"samples": result})


def told_unfit(node: type[io.ComfyNode], model: Any, steps: int, guidance: float) -> str:
    """Warn on the node if its values suit other weights than the model's; return the warning.

    Called before the work starts, as such a run would take long and give a poor result.
    """
    text = presets.unfit(check_model(model).params, steps, guidance)
    if text:
        show_status(node, text)
    return text


def sample_segments(
    model: comfy.model_patcher.ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    samples: Tensor,
    noise: Tensor,
    *,
    steps: int = settings.DEFAULT_STEPS,
    guidance: float = settings.DEFAULT_GUIDANCE,
    guided: GuidanceRange = WHOLE_RUN,
    seed: int = 0,
    segment_length: int = SEGMENT_LENGTH,
    overlap: int = OVERLAP,
    propagation: FlowPropagation | None = None,
    noise_mask: Tensor | None = None,
    on_pass: Callable[[], None] = ignore,
    on_step: Callable[[StepDown], None] = ignore,
) -> Tensor:
    """Sample through ComfyUI's guider, sampler and context windows.

    Args:
        samples: (1, 4, t, h, w); zeros start from noise alone.
        noise: the same shape, standard normal.
        on_pass: called when the model has seen a segment, at every step.
        on_step: called when memory ran out, with the step down that was taken.
        guided: the part of the run with guidance.

    Returns:
        The sampled latent, already divided by the latent scale.

    Raises:
        InputError: before any model is loaded, if the parts do not fit each other.
        NumericalError: the model gave NaN or infinity.
    """
    unet, (t, h, w) = check_model(model), samples.shape[2:]
    for name, cond in (("positive", positive), ("negative", negative)):
        check_conditioning(name, cond, unet)
        check_same_clip("latent", (t, h, w), tuple(cond[0][1][LOW_RES].shape[2:]))
    sigmas = schedule.sigmas(steps, unet.params.trailing)
    segments = len(plan_segments(t, segment_length, overlap))
    pairs = 0
    if propagation is not None:
        propagation.check_clip(samples)
        if propagation.steps(steps) and propagation.flows is None:
            pairs = t - 1
    report = SegmentProgress(model, steps, segments, guidance, on_pass, pairs)
    if pairs and propagation is not None:
        # Before the U-Net is loaded, so that RAFT and the U-Net need not share the memory.
        propagation.estimate(report.flow, on_step)

    in_segments = with_segments(model, segment_length, overlap, report.segment, on_step)
    guider = RangedGuider(in_segments, guided, sigmas)
    guider.set_conds(positive, negative)
    guider.set_cfg(guidance)
    sampled = guider.sample(
        noise,
        samples,
        DDIMSampler(propagation),
        sigmas,
        denoise_mask=noise_mask,
        callback=report.step,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    check_finite(sampled, "latent", "The U-Net", dim=2)
    return sampled


class Sigmas(io.ComfyNode):
    """The schedule, for SamplerCustomAdvanced."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoSigmas",
            "Sigmas (Upscale-A-Video)",
            ("scheduler", "ddim schedule"),
            category=SAMPLING,
            description="The DDIM schedule of the reference implementation, for "
            "'SamplerCustomAdvanced'. ComfyUI's ddim_uniform gives different time steps.",
            inputs=[
                settings.steps_input("Number of sampling steps."),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The temporal U-Net that will be sampled. The included weights have "
                    "their own schedule. Without a model, it is the one of the authors' weights.",
                ),
            ],
            outputs=[io.Sigmas.Output(tooltip="For 'sigmas' of 'SamplerCustomAdvanced'.")],
        )

    @classmethod
    def execute(
        cls, steps: int, model: comfy.model_patcher.ModelPatcher | None = None
    ) -> io.NodeOutput:
        trailing = model is not None and check_model(model).params.trailing
        if model is None and steps < presets.FEWEST_LEADING:
            raise InputError(
                f"{steps} steps need the model's own schedule: connect the temporal U-Net to "
                f"'model', or give at least {presets.FEWEST_LEADING} steps."
            )
        return io.NodeOutput(schedule.sigmas(steps, trailing))


class Sampler(io.ComfyNode):
    """The sampler, for SamplerCustomAdvanced."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoSampler",
            "Sampler (Upscale-A-Video)",
            ("ddim sampler", "propagation sampler"),
            category=SAMPLING,
            description="DDIM with flow-guided propagation, for 'SamplerCustomAdvanced'.",
            inputs=[
                PropagationSocket.Input(
                    "propagation",
                    optional=True,
                    tooltip="From 'Flow-Guided Propagation'. Its steps are counted from 0 in the "
                    "sigmas given to the sampler.",
                )
            ],
            outputs=[io.Sampler.Output(tooltip="For 'sampler' of 'SamplerCustomAdvanced'.")],
        )

    @classmethod
    def execute(cls, propagation: FlowPropagation | None = None) -> io.NodeOutput:
        if propagation is not None and propagation.steps_text.strip():
            propagation.estimate()
        return io.NodeOutput(DDIMSampler(propagation))


class Segments(io.ComfyNode):
    """Segments on a MODEL, for any sampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoSegments",
            "Segments on Model (Upscale-A-Video)",
            ("context windows", "video segments"),
            category=SAMPLING,
            description="Makes any sampler run the model on overlapping segments of the clip.",
            inputs=[
                io.Model.Input("model", tooltip="The temporal U-Net."),
                settings.segment_length_input(
                    "Number of frames that the model processes at once. It was trained with 8."
                ),
                settings.overlap_input("Number of frames that neighbouring segments share."),
            ],
            outputs=[io.Model.Output(tooltip="For any guider or sampler.")],
        )

    @classmethod
    def execute(
        cls, model: comfy.model_patcher.ModelPatcher, segment_length: int, overlap: int
    ) -> io.NodeOutput:
        check_model(model)
        return io.NodeOutput(with_segments(model, segment_length, overlap))
