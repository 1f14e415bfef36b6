"""'Upscale Video': what it runs inside, and the models of one kind."""

from __future__ import annotations

from typing import Any

import pytest

OWN, LINK = "UpscaleAVideo", ["7", 0]


@pytest.fixture(scope="module")
def simple(pack):
    return pack.nodes.longvideo.simple


def inside(simple: Any, **values: Any) -> dict[str, dict[str, Any]]:
    """The nodes inside by their kind; of the two texts the last."""
    given = {
        "quality": "balanced",
        "size": "4x",
        "look": "balanced",
        "weights": "included",
        "text": "a fox",
        "seed": 3,
        "filename_prefix": "here/fox",
        **values,
    }
    expanded = simple.UpscaleVideo.execute(LINK, **given).expand
    return {node["class_type"]: node["inputs"] for node in expanded.values()}


def schemas(pack: Any) -> dict[str, Any]:
    return {s.node_id: s for s in (node.define_schema() for node in pack.nodes.NODES)}


@pytest.mark.parametrize("weights", ["included", "authors'"])
@pytest.mark.parametrize("size", ["4x", "2x", "1080p"])
def test_the_nodes_inside_get_what_they_need(pack, simple, weights, size):
    known = schemas(pack)
    for kind, values in inside(simple, weights=weights, size=size).items():
        if not kind.startswith(OWN):
            continue
        entries = {entry.id: entry for entry in known[kind].inputs}
        assert set(values) <= set(entries)
        assert {name for name, entry in entries.items() if not entry.optional} <= set(values)
        for name, value in values.items():
            options = getattr(entries[name], "options", None)
            assert options is None or value in options, name
            if getattr(entries[name], "min", None) is not None:
                assert entries[name].min <= value <= entries[name].max, name


def test_choices_become_the_values_of_settings(pack, simple):
    presets = pack.uav_core.sampling.presets
    for weights in ("included", "authors'"):
        for look, quality in (("faithful", "draft"), ("creative", "best")):
            nodes = inside(simple, weights=weights, look=look, quality=quality)
            taken = {**nodes[f"{OWN}LongVideoOptions"], **nodes[f"{OWN}LongVideo"]}
            named = {**presets.settings(weights, look, quality), **presets.FIXED[weights]}
            assert {name: taken[name] for name in named} == named
            assert nodes[f"{OWN}Loader"]["weights"] == weights


def test_a_size_is_told_to_the_options(simple):
    options = inside(simple, size="1080p")[f"{OWN}LongVideoOptions"]
    assert (options["output_size"], options["short_side"]) == ("short side", 1080)
    options = inside(simple, size="3x")[f"{OWN}LongVideoOptions"]
    assert (options["output_size"], options["factor"]) == ("factor", 3.0)


def test_the_video_is_handed_on_as_it_was_linked(simple):
    node = inside(simple)[f"{OWN}LongVideo"]
    assert node["video"] == LINK
    assert (node["seed"], node["filename_prefix"], node["detail"]) == (3, "here/fox", 1.0)
    assert inside(simple, detail=0.4)[f"{OWN}LongVideo"]["detail"] == 0.4


def test_included_weights_by_one_choice(pack):
    load = pack.nodes.loaders.load
    model, vae, clip, flow = load.LoadAll.execute("included").result
    unet, decoder, text, motion = load.names_of("included")
    assert all("(included)" in name for name in (unet, decoder, text))
    assert "video" in decoder and motion == pack.uav_core.flow.builtin.BUILTIN_FLOW
    assert vae.first_stage_model.params.temporal
    assert model.model and clip.patcher and flow.model


def test_no_kind_of_weights(pack):
    with pytest.raises(pack.uav_core.InputError, match="expected one of"):
        pack.nodes.loaders.load.names_of("mine")


def test_the_samples_lie_in_the_input_folder(pack, tmp_path, monkeypatch, caplog):
    import folder_paths

    files = pack.nodes.base.files
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))
    files.place_samples()
    assert files.SAMPLES
    for name, source in files.SAMPLES.items():
        assert (tmp_path / name).read_bytes() == source.read_bytes()
        (tmp_path / name).write_bytes(b"mine")
    files.place_samples()
    assert all((tmp_path / name).read_bytes() == b"mine" for name in files.SAMPLES)
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path / "none"))
    with caplog.at_level("INFO"):
        files.place_samples()
    assert "could not be copied" in caplog.text


def test_what_runs_inside_writes_on_the_node_that_is_seen(pack, monkeypatch):
    import sys
    from types import SimpleNamespace

    told = []
    instance = SimpleNamespace(
        client_id="the asking page",
        send_progress_text=lambda text, number, client: told.append((number, client)),
    )
    server = SimpleNamespace(PromptServer=SimpleNamespace(instance=instance))
    monkeypatch.setitem(sys.modules, "server", server)
    prompt = SimpleNamespace(get_display_node_id={"4.0.0.5": "4", "6": "6"}.__getitem__)
    for number in ("4.0.0.5", "6"):
        hidden = SimpleNamespace(unique_id=number, dynprompt=prompt)
        pack.nodes.base.runtime.show_status(SimpleNamespace(hidden=hidden), "text")
    assert told == [("4", "the asking page"), ("6", "the asking page")]
