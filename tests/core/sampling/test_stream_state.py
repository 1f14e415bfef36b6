import pytest
import torch
from made_streams import H, W, propagated, rest_of

from uav_core import InputError
from uav_core.sampling import schedule
from uav_core.sampling.stream import (
    DamagedStateError,
    DenoisedDDIM,
    StreamState,
    load_state,
    save_state,
)


@pytest.mark.parametrize("count", [4, 9])
def test_a_restored_stream_gives_the_same_bits(count, tmp_path):
    whole = rest_of(propagated().stream())
    stream, path = propagated().stream(), tmp_path / "scene.state"
    while (part := stream.advance(count)) is not None:
        start = stream.fetched - part.shape[2]
        assert torch.equal(part, whole[:, :, start : stream.fetched])
        save_state(path, stream.state())
        other = propagated().stream()
        other.restore(load_state(path))
        assert other.passes == stream.passes
        assert other.window == stream.window
        assert torch.equal(rest_of(other), whole[:, :, stream.fetched :])
    assert list(tmp_path.iterdir()) == [path]


def saved(path):
    stream = propagated().stream()
    stream.advance(5)
    save_state(path, stream.state())
    return path.read_bytes()


def test_damage_anywhere_is_found(tmp_path):
    path = tmp_path / "scene.state"
    data = saved(path)
    header = 8 + int.from_bytes(data[:8], "little")
    for at in [*range(0, header, 41), *range(header, len(data), len(data) // 23), len(data) - 1]:
        if data[at] == ord(" "):
            continue  # padding of the header
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(DamagedStateError, match=r"scene\.state"):
            load_state(path)


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_a_state_cut_short_is_found(kept, tmp_path):
    path = tmp_path / "scene.state"
    data = saved(path)
    path.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    with pytest.raises(DamagedStateError):
        load_state(path)


def test_a_missing_state_is_named(tmp_path):
    with pytest.raises(DamagedStateError, match="cannot be read"):
        load_state(tmp_path / "none.state")


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    path = tmp_path / "scene.state"
    (path / "in the way").mkdir(parents=True)
    with pytest.raises(OSError):
        save_state(path, propagated().stream().state())
    assert list(tmp_path.iterdir()) == [path]


def test_a_state_is_a_copy():
    whole = rest_of(propagated().stream())
    stream = propagated().stream()
    stream.advance(9)
    state = stream.state()
    for tensor in state.tensors.values():
        tensor.zero_()
    assert torch.equal(rest_of(stream), whole[:, :, 9:])


def test_a_state_of_another_run_is_refused():
    state = propagated().stream().state()
    with pytest.raises(InputError, match="frames is 45, expected 46"):
        propagated(46).stream().restore(state)
    with pytest.raises(InputError, match="ddim"):
        propagated().stream(ddim=DenoisedDDIM(schedule.sigmas(3))).restore(state)


def test_a_state_that_does_not_hold_together_changes_nothing():
    whole = rest_of(propagated().stream())
    stream = propagated().stream()
    stream.advance(9)
    state = stream.state()
    without = dict(state.tensors)
    del without["latents.1"]
    wrong = [
        StreamState(state.meta, without),
        StreamState(state.meta, {**state.tensors, "more": torch.zeros(1, 4, 1, H, W)}),
        StreamState({**state.meta, "segments": [1, 2]}, state.tensors),
        StreamState({**state.meta, "segments": [2, 1, 0]}, state.tensors),
        StreamState({**state.meta, "fetched": "9"}, state.tensors),
        StreamState({**state.meta, "swept": {}}, state.tensors),
    ]
    for each in wrong:
        with pytest.raises(DamagedStateError):
            stream.restore(each)
    assert torch.equal(rest_of(stream), whole[:, :, 9:])
