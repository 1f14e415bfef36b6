"""The node Settings without a page: its values count, whatever is chosen."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="module")
def node(pack):
    return pack.nodes.sampling.presets.Settings


@pytest.fixture(scope="module")
def presets(pack):
    return pack.uav_core.sampling.presets


def defaults(node):
    return {entry.id: entry.default for entry in node.define_schema().inputs}


def test_it_starts_with_the_shipped_values(node, presets):
    chosen = {"weights": presets.INCLUDED, "look": presets.BALANCED, "speed": presets.BALANCED}
    assert defaults(node) == {**chosen, **presets.settings(presets.INCLUDED)}


def test_every_preset_is_a_choice_and_none_is_one(node, presets):
    options = {e.id: e.options for e in node.define_schema().inputs if hasattr(e, "options")}
    for known, name in ((presets.LOOKS, "look"), (presets.SPEEDS, "speed")):
        for choices in known.values():
            assert options[name] == [*choices, presets.CUSTOM]
    assert options["weights"] == list(presets.LOOKS) == list(presets.SPEEDS)


def test_every_preset_lies_in_the_ranges_of_the_stages(pack, node, presets):
    """The page would not let anyone set other values by hand."""
    taken = {
        "noise_level": (pack.nodes.sampling.condition.LowResConditioning, "noise_level"),
        "guidance": (pack.nodes.sampling.sample.SegmentSampler, "guidance"),
        "steps": (pack.nodes.sampling.sample.SegmentSampler, "steps"),
        "propagation_strength": (pack.nodes.sampling.propagate.Propagation, "strength"),
    }
    own = {entry.id: entry for entry in node.define_schema().inputs}
    for name, (stage, input_name) in taken.items():
        (entry,) = (e for e in stage.define_schema().inputs if e.id == input_name)
        assert (own[name].min, own[name].max) == (entry.min, entry.max)
    for choices in presets.table().values():
        for values in (*choices["look"].values(), *choices["speed"].values()):
            for name, value in values.items():
                assert isinstance(value, type(own[name].default)), name
                if name in taken:
                    assert own[name].min <= value <= own[name].max


def test_a_self_ensemble_without_a_link_is_told(pack, node, presets, monkeypatch, caplog):
    """In workflows that were made before this output existed."""
    values = {**defaults(node), "speed": "best", **presets.settings(presets.INCLUDED, speed="best")}
    slot = [out.display_name for out in node.define_schema().outputs].index("self_ensemble")
    told = pack.nodes.sampling.presets.NOT_LINKED
    for links, is_told in (([["7", 0]], True), ([["7", 0], ["7", slot]], False)):
        caplog.clear()
        inputs = {f"in{i}": link for i, link in enumerate(links)}
        prompt = {"7": {"inputs": values}, "8": {"inputs": inputs}}
        hidden = SimpleNamespace(unique_id="7", prompt=prompt)
        monkeypatch.setattr(node, "hidden", hidden)
        with caplog.at_level(logging.INFO):
            assert node.execute(**values).result[slot] is True
        assert (told in caplog.text) == is_told


def test_the_page_is_told_the_table(node, presets):
    """In the form of /object_info, which the page reads."""
    _, options = node.GET_NODE_INFO_V1()["input"]["required"]["weights"]
    assert options["uav_presets"] == {"custom": presets.CUSTOM, "table": presets.table()}


def test_the_values_come_out(node, caplog):
    values = {**defaults(node), "look": "custom", "noise_level": 33, "guidance": 1.5}
    with caplog.at_level(logging.INFO):
        result = node.execute(**values).result
    names = [out.display_name for out in node.define_schema().outputs]
    assert dict(zip(names, result, strict=True)) == {name: values[name] for name in names}
    assert not caplog.records


def test_a_choice_that_names_other_values_is_told(node, caplog):
    values = {**defaults(node), "look": "creative", "steps": 9}
    with caplog.at_level(logging.INFO):
        result = node.execute(**values).result
    assert result[0] == values["noise_level"]
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "steps 9 is used instead of 1" in record.message
    assert "guidance 1.0 is used instead of 3.0" in record.message
    assert "propagation_steps" not in record.message


def test_a_connected_text_that_is_no_kind_of_weights_is_refused(pack, node):
    with pytest.raises(pack.uav_core.errors.InputError, match=r"'mine'.*'included' or 'authors''"):
        node.execute(**{**defaults(node), "weights": "mine"})
