from uav_core.propagation import parse_steps
from uav_core.quality_presets import PRESETS


def test_presets_go_from_fast_to_careful():
    assert list(PRESETS) == ["Draft", "Balanced", "Best"]
    steps = [preset.steps for preset in PRESETS.values()]
    assert steps == sorted(set(steps))


def test_propagation_is_what_the_node_would_do():
    for preset in PRESETS.values():
        text = f"last {preset.propagated}"
        assert preset.propagation_steps == parse_steps(text, preset.steps) != ()
