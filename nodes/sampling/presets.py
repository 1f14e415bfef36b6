"""Settings of a run in one node: named presets, and the values that they set."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...uav_core.sampling import presets
from ..base import settings
from ..base.runtime import show_status
from ..base.schema import for_page, schema

# Key of the presets in the input's definition, which web/js/settings.js reads.
PRESETS = "uav_presets"


def named_input(name: str, known: dict[str, dict[str, Any]], tooltip: str) -> Any:
    """A combo input of the preset names, which are the same for all weights, and custom."""
    options = [*next(iter(known.values())), presets.CUSTOM]
    return io.Combo.Input(name, options=options, default=presets.BALANCED, tooltip=tooltip)


NOT_LINKED = (
    "'self_ensemble' is on, but has no effect: connect it to 'Temporal VAE Decode' or 'Options for "
    "Long Video'."
)


def _is_used(node: Any, slot: int) -> bool:
    """Whether an input in the prompt is linked to this output; True if there is no prompt."""
    hidden = node.hidden
    if hidden is None or not hidden.prompt:
        return True
    link = [str(hidden.unique_id), slot]
    inputs = (value for part in hidden.prompt.values() for value in part["inputs"].values())
    return any(value == link for value in inputs)


class Settings(io.ComfyNode):
    """Presets, and values for the stages."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        start = presets.settings(presets.INCLUDED)
        values = [
            settings.noise_level_input(
                "For 'Low-Res Conditioning'. Low values stay close to the input; high values let "
                "the model invent and repair more."
            ),
            settings.guidance_input(
                "For 'Segment Sampler'. Higher values are sharper and flicker more; 1 ignores the "
                "negative text and takes half the time."
            ),
            settings.steps_input("For 'Segment Sampler'. More steps take more time."),
            io.String.Input(
                "propagation_steps",
                tooltip="For 'steps' of 'Flow-Guided Propagation', such as '24,26,28', '80%-95%' "
                "or 'last 3'. Empty: no propagation.",
            ),
            settings.strength_input(
                "propagation_strength",
                "For 'strength' of 'Flow-Guided Propagation'. Higher values are steadier and "
                "softer.",
            ),
            settings.self_ensemble_input(
                "For 'Temporal VAE Decode'. Steadier and closer to the original, but decoding "
                "takes four times as long."
            ),
        ]
        for value in values:
            value.default = start[value.id]
        weights = io.Combo.Input(
            "weights",
            options=list(presets.LOOKS),
            default=presets.INCLUDED,
            tooltip="The weights chosen in the loaders. The presets for the included weights are "
            "measured. For the authors' weights, balanced is the reference's setting; the others "
            "are not measured.",
        )
        return schema(
            "UpscaleAVideoSettings",
            "Settings (Upscale-A-Video)",
            ("presets", "faithful balanced creative", "draft best quality", "upscale settings"),
            description="The most important settings in one place. A look and a speed set the "
            "values below. You can change each value by hand; the run uses the values.",
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            inputs=[
                for_page(
                    weights, **{PRESETS: {"custom": presets.CUSTOM, "table": presets.table()}}
                ),
                named_input(
                    "look",
                    presets.LOOKS,
                    "Sets noise_level, guidance and propagation_strength. faithful stays closest "
                    "to the input, creative adds the most detail. Becomes custom when you change "
                    "one of them.",
                ),
                named_input(
                    "speed",
                    presets.SPEEDS,
                    "Sets steps, propagation_steps and self_ensemble. Becomes custom when you "
                    "change one of them.",
                ),
                *values,
            ],
            outputs=[
                kind.Output(display_name=value.id, tooltip=f"For {place}.")
                for value, kind, place in zip(
                    values,
                    (io.Int, io.Float, io.Int, io.String, io.Float, io.Boolean),
                    (
                        "'noise_level' of 'Low-Res Conditioning'",
                        "'guidance' of 'Segment Sampler'",
                        "'steps' of 'Segment Sampler'",
                        "'steps' of 'Flow-Guided Propagation'",
                        "'strength' of 'Flow-Guided Propagation'",
                        "'self_ensemble' of 'Temporal VAE Decode'",
                    ),
                    strict=True,
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        weights: str,
        look: str,
        speed: str,
        noise_level: int,
        guidance: float,
        steps: int,
        propagation_steps: str,
        propagation_strength: float,
        self_ensemble: bool = False,
    ) -> io.NodeOutput:
        values = {
            "noise_level": noise_level,
            "guidance": guidance,
            "steps": steps,
            "propagation_steps": propagation_steps,
            "propagation_strength": propagation_strength,
            "self_ensemble": self_ensemble,
        }
        others = presets.differences(weights, look, speed, values)
        told = [f"{name} {values[name]} is used instead of {named}" for name, named in others]
        if self_ensemble and not _is_used(cls, list(values).index("self_ensemble")):
            # Workflows made before it existed have no such link.
            show_status(cls, NOT_LINKED)
        elif told:
            # Only the page makes the values follow a preset; an API prompt may contradict it.
            chosen = f"Look {look}, speed {speed}, {weights} weights"
            show_status(cls, f"{chosen}: {'; '.join(told)}.")
        return io.NodeOutput(*values.values())
