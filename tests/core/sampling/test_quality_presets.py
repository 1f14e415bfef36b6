"""The table of presets, and what the workflows and the reference are set to."""

from dataclasses import replace

import pytest

from uav_core.models.unet import UNetParams
from uav_core.sampling.presets import (
    AUTHORS,
    BALANCED,
    CUSTOM,
    INCLUDED,
    LOOKS,
    SPEEDS,
    differences,
    kind_of,
    settings,
    table,
    unfit,
)
from uav_core.sampling.propagation import parse_steps
from uav_core.sampling.schedule import check_noise_level
from uav_core.weights import included

KINDS = (INCLUDED, AUTHORS)


@pytest.mark.parametrize("weights", KINDS)
def test_they_go_from_the_input_to_invention_and_from_fast_to_careful(weights):
    assert list(LOOKS[weights]) == ["faithful", BALANCED, "creative"]
    assert list(SPEEDS[weights]) == ["draft", BALANCED, "best"]
    work = [
        (
            speed.steps,
            len(parse_steps(speed.propagation_steps, speed.steps)),
            speed.self_ensemble,
        )
        for speed in SPEEDS[weights].values()
    ]
    assert work == sorted(set(work))
    guidance = [look.guidance for look in LOOKS[weights].values()]
    assert guidance == sorted(guidance)


@pytest.mark.parametrize("weights", KINDS)
def test_every_value_can_be_run(weights):
    for look in LOOKS[weights].values():
        check_noise_level(look.noise_level)
        assert look.guidance >= 1
        assert 0 <= look.propagation_strength <= 1
    for speed in SPEEDS[weights].values():
        chosen = parse_steps(speed.propagation_steps, speed.steps)
        assert chosen or (weights, speed) == (INCLUDED, SPEEDS[INCLUDED]["draft"])


def test_balanced_is_what_was_measured_and_what_the_reference_does():
    assert settings(INCLUDED) == {
        "noise_level": included.NOISE_LEVEL,
        "guidance": included.GUIDANCE,
        "propagation_strength": 0.5,
        "steps": included.STEPS,
        "propagation_steps": f"last {included.PROPAGATED}",
        "self_ensemble": False,
    }
    assert settings(AUTHORS) == {
        "noise_level": 120,
        "guidance": 6.0,
        "propagation_strength": 0.5,
        "steps": 30,
        "propagation_steps": "24,26,28",
        "self_ensemble": False,
    }


def test_propagation_of_the_authors_weights_keeps_its_shares_of_the_run():
    speeds = SPEEDS[AUTHORS]
    reference = [24 / 30, 26 / 30, 28 / 30]
    for speed in speeds.values():
        chosen = parse_steps(speed.propagation_steps, speed.steps)
        assert len(chosen) == len(reference)
        for step, share in zip(chosen, reference, strict=True):
            assert abs(step - share * speed.steps) <= 0.5


def test_the_table_is_plain_and_complete():
    assert set(table()) == set(KINDS)
    owned = {
        chooser: {frozenset(values) for kind in KINDS for values in table()[kind][chooser].values()}
        for chooser in ("look", "speed")
    }
    assert owned["look"] == {frozenset({"noise_level", "guidance", "propagation_strength"})}
    assert owned["speed"] == {frozenset({"steps", "propagation_steps", "self_ensemble"})}


def test_differences_are_those_to_what_is_chosen():
    values = settings(INCLUDED)
    assert list(differences(INCLUDED, BALANCED, BALANCED, values)) == []
    changed = {**values, "steps": 7, "guidance": 1.5}
    found = dict(differences(INCLUDED, BALANCED, BALANCED, changed))
    assert found == {"steps": values["steps"], "guidance": values["guidance"]}
    assert dict(differences(INCLUDED, CUSTOM, BALANCED, changed)) == {"steps": values["steps"]}
    assert list(differences(INCLUDED, CUSTOM, CUSTOM, changed)) == []


@pytest.mark.parametrize("weights", KINDS)
def test_values_of_the_other_kind_of_weights_are_told(weights):
    (other,) = set(KINDS) - {weights}
    params = UNetParams() if weights == AUTHORS else UNetParams(channels=(96,), trailing=True)
    for speed in SPEEDS[weights].values():
        for look in LOOKS[weights].values():
            assert unfit(params, speed.steps, look.guidance) == ""
    strange = settings(other)
    text = unfit(params, strange["steps"], strange["guidance"])
    assert f"steps {strange['steps']}" in text and f"guidance {strange['guidance']:g}" in text
    assert f"choose the weights '{weights}'" in text


def test_few_steps_of_weights_without_trailing_time_steps_are_told():
    leading = UNetParams(channels=(96, 64, 64))
    assert "steps 1 (without trailing time steps: 4 or more)" in unfit(leading, 1, 1.0)
    assert unfit(leading, 4, 1.0) == "" == unfit(replace(leading, trailing=True), 1, 1.0)


def test_the_kind_is_told_by_the_size():
    assert kind_of(UNetParams()) == AUTHORS
    assert kind_of(UNetParams(channels=(64, 128, 192, 256))) == INCLUDED
