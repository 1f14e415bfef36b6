import gc
import json
import logging
import weakref

import pytest
import torch

from uav_core.devices import memory
from uav_core.devices.memory import Sparing
from uav_core.errors import InputError, UpscaleAVideoError
from uav_core.sampling.ladder import (
    Ladder,
    OutOfMemoryError,
    Setting,
    decode_ladder,
    flow_ladder,
    is_out_of_memory,
    run_with_fallback,
    sample_ladder,
)
from uav_core.sampling.tiles import plan_tiles

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB"


def no_memory() -> Exception:
    return torch.OutOfMemoryError(CUDA)


class Work:
    """Runs out of memory with the first ``fits`` settings of a ladder."""

    def __init__(self, ladder: Ladder, fits: int, error=no_memory):
        self.ladder, self.fits, self.error = ladder, fits, error
        self.tried: list[Setting] = []

    def __call__(self, setting: Setting) -> Setting:
        self.tried.append(setting)
        if self.ladder.settings.index(setting) < self.fits:
            raise self.error()
        return setting


class Counter:
    count = 0

    def one(self) -> None:
        self.count += 1


def ladder() -> Ladder:
    return decode_ladder(8, 270, 480)


@pytest.mark.parametrize(
    "error",
    [
        no_memory(),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate "
                     "memory: you tried to allocate 99999999999999 bytes."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDNN_BACKEND_TENSOR_DESCRIPTOR cudnnFinalize failed cudnn_status: "
                     "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("VRAM grow failed: 16777216 bytes"),
        OutOfMemoryError("at the end of a ladder"),
    ],
)  # fmt: skip
def test_recognised(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory")],
)
def test_not_recognised(error):
    assert not is_out_of_memory(error)
    assert is_out_of_memory(error, also=lambda e: e is error)


def test_the_hosts_judge_always_hears_of_it():
    """ComfyUI's also clears an error that CUDA would report at the next call."""
    heard: list[BaseException] = []
    error = no_memory()
    assert is_out_of_memory(error, also=lambda e: bool(heard.append(e)))
    assert heard == [error]


def test_a_real_allocation_failure_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_the_rungs():
    assert [s.to_json() for s in decode_ladder(8, 270, 480).settings] == [
        {"frames": 3},
        {"frames": 3, "sparing": 2},
        {"frames": 2, "sparing": 2},
        {"frames": 1, "sparing": 2},
        *({"frames": 1, "tile": n, "overlap": 16, "sparing": 2} for n in (256, 192, 128, 64)),
    ]
    assert [s.to_json() for s in sample_ladder(8, 100, 192).settings] == [
        {},
        {"sparing": 1},
        {"sparing": 2},
        {"tile": 128, "overlap": 16, "sparing": 2},
        {"tile": 64, "overlap": 16, "sparing": 2},
    ]
    assert [s.to_json() for s in flow_ladder(540, 960).settings] == [
        {},
        {"sparing": 1},
        *({"longest_side": n, "sparing": 1} for n in (768, 512, 384, 256)),
    ]
    # Where a tile would change nothing there is none.
    assert decode_ladder(1, 48, 64).settings == (Setting(1), Setting(1, sparing=2))


@pytest.mark.parametrize("overlap", [0, 16, 56, 64, 128, 512])
def test_every_rung_has_an_overlap_that_its_tiles_can_have(overlap):
    for rungs in (decode_ladder(8, 270, 480, 3, overlap), sample_ladder(8, 270, 480, overlap)):
        tiles = [s for s in rungs.settings if s.tile]
        for s in tiles:
            assert len(plan_tiles((270, 480), s.tile or 0, s.overlap)) > 1
        assert [s.overlap for s in tiles if (s.tile or 0) - 8 >= overlap] == [
            overlap for s in tiles if (s.tile or 0) - 8 >= overlap
        ]


def test_a_job_that_recorded_an_overlap_too_large_goes_on():
    rungs = sample_ladder(8, 270, 480, 64)
    rungs.resume(Setting(tile=64, overlap=64, sparing=2))
    assert (rungs.setting.tile, rungs.setting.overlap) == (64, 32)


def test_the_work_is_as_sparing_as_the_rung():
    found = []

    def work(setting: Setting) -> None:
        found.append([memory.spares(level) for level in (Sparing.HALVES, Sparing.STRIPES)])
        raise no_memory()

    with pytest.raises(OutOfMemoryError):
        run_with_fallback(work, sample_ladder(8, 48, 64))
    assert found == [[False, False], [True, False], [True, True]]
    assert not memory.spares(Sparing.HALVES)


def test_what_cannot_fit_is_not_tried(caplog):
    """Sizes that take more than the device has are stepped over, those that may fit are not."""

    def needs(setting: Setting) -> int:
        h, w = setting.size(720, 1280)
        return 1000 * (setting.frames or 8) * h * w

    room = needs(Setting(frames=2))
    rungs = decode_ladder(8, 720, 1280)
    with caplog.at_level(logging.WARNING):
        step = rungs.foresee(needs, room)
    assert rungs.setting == Setting(2, sparing=2) and caplog.messages == [str(step)]
    words = "Not enough memory for decoding frames of 1280x720 with 3 frames at once ("
    assert str(step).startswith(words) and " needed, " in str(step)
    assert rungs.foresee(needs, room) is None, "what fits stays"
    assert rungs.foresee(needs, 0) is None, "nothing is known"
    work = Work(rungs, 0)
    run_with_fallback(work, rungs)
    assert work.tried == [rungs.setting]
    assert rungs.foresee(needs, 1) is not None
    assert rungs.setting == rungs.settings[-1], "tried all the same"
    assert rungs.foresee(needs, 1) is None


@pytest.mark.parametrize("make", [ladder, lambda: sample_ladder(8, 270, 480),
                                  lambda: flow_ladder(1080, 1920)])  # fmt: skip
def test_every_rung(make, caplog):
    for fits in range(len(make().settings)):
        steps, released, rungs = [], Counter(), make()
        work = Work(rungs, fits)
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            result = run_with_fallback(work, rungs, released.one, steps.append)
        assert result == rungs.settings[fits] == rungs.setting
        assert work.tried == list(rungs.settings[: fits + 1])
        assert released.count == len(steps) == fits
        assert [s.before for s in steps] == work.tried[:-1]
        assert [s.after for s in steps] == work.tried[1:]
        said = [str(step) for step in steps]
        assert [r.getMessage() for r in caplog.records] == said
        assert all("Tried to allocate 2.00 GiB" in line for line in said)


def test_the_level_is_kept_for_the_rest_of_the_job():
    rungs, steps = ladder(), []
    work = Work(rungs, 3)
    for _ in range(3):
        run_with_fallback(work, rungs, on_step=steps.append)
    assert [s.frames for s in work.tried] == [3, 3, 2, 1, 1, 1]
    assert len(steps) == 3
    assert "frames of 480x270 with 3 frames at once" in str(steps[0])
    assert "continued with layers in stripes, 3 frames at once" in str(steps[0])
    assert "continued with layers in stripes, 2 frames at once" in str(steps[1])


def test_the_end_of_the_ladder_says_what_was_tried():
    rungs, released = decode_ladder(2, 100, 100), Counter()
    with pytest.raises(OutOfMemoryError) as caught:
        run_with_fallback(Work(rungs, 99), rungs, released.one)
    assert isinstance(caught.value, UpscaleAVideoError)
    text = str(caught.value)
    assert "decoding frames of 100x100" in text
    tried = [line for line in text.replace("layers in stripes, ", "").split("; ")]
    assert tried[-3:-1] == ["2 frames at once", "1 frame at once"]
    assert tried[-1].startswith("1 frame at once, tiles of 64x64 px")
    assert "2.00 GiB" in text
    assert caught.value.__context__ is None, "it would hold the failed try's tensors"
    assert released.count == 4


def test_tensors_of_a_failed_try_are_gone_before_memory_is_released():
    held: list[weakref.ref] = []
    gc.disable()
    try:

        def work(setting):
            big = torch.ones(10)
            held.append(weakref.ref(big))
            if setting.sparing is None:
                # The worst case: a frame that holds the error that holds the frame.
                error = no_memory()
                raise error
            return "done"

        def release():
            assert [ref() for ref in held] == [None]

        assert run_with_fallback(work, ladder(), release) == "done"
    finally:
        gc.enable()
    assert len(held) == 2


class Cancelled(Exception):
    pass


@pytest.mark.parametrize(
    "error", [Cancelled, KeyboardInterrupt, lambda: ValueError("x"), lambda: RuntimeError("shape")]
)
def test_cancel_and_other_errors_pass(error):
    rungs, stopped = ladder(), error()

    def raise_it():
        return stopped

    work = Work(rungs, 99, raise_it)
    with pytest.raises(type(stopped)) as caught:
        run_with_fallback(work, rungs, lambda: pytest.fail("released"))
    assert caught.value is stopped
    assert len(work.tried) == 1
    assert rungs.setting == rungs.settings[0]


def test_the_hosts_own_errors_count_if_it_says_so():
    rungs = ladder()

    def device_lost():
        return RuntimeError("device error 2")

    work = Work(rungs, 1, device_lost)
    assert run_with_fallback(work, rungs, also=lambda e: "error 2" in str(e)) == rungs.settings[1]


def test_nested():
    """A stage at its end makes the stage around it step down, and starts where it ended."""
    outer, inner = sample_ladder(8, 100, 300), flow_ladder(300, 600)
    tried, steps = [], []

    def inside(setting):
        tried.append((outer.setting.tile, setting.longest_side))
        if outer.setting.tile != 192:
            raise no_memory()
        return "done"

    def around(_):
        return run_with_fallback(inside, inner, on_step=lambda step: steps.append("inner"))

    assert run_with_fallback(around, outer, on_step=steps.append) == "done"
    assert [n for _, n in tried[:5]] == [None, None, 512, 384, 256]
    assert tried[5:] == [(None, 256), (None, 256), (256, 256), (192, 256)]
    assert steps[:4] == ["inner"] * 4 and len(steps) == 8
    assert "smallest setting" in str(steps[4])


def test_settings_survive_a_manifest():
    rungs = ladder()
    run_with_fallback(Work(rungs, 5), rungs)
    data = json.loads(json.dumps(rungs.setting.to_json()))
    assert data == {"frames": 1, "tile": 192, "overlap": 16, "sparing": 2}
    for recorded in (data, {**data, "sparing": None}):
        later = ladder()
        # As older jobs have it.
        older = {name: value for name, value in recorded.items() if value is not None}
        later.resume(Setting.from_json(older))
        assert run_with_fallback(lambda setting: setting, later) == rungs.setting
    with pytest.raises(InputError, match="with its original settings"):
        ladder().resume(Setting(frames=7))


@pytest.mark.parametrize(
    "data", [{"frame": 1}, {"tile": 1.5}, {"tile": True}, {"tile": -1}, {"sparing": 3}]
)
def test_unknown_settings_are_named(data):
    with pytest.raises(InputError, match="is not valid"):
        Setting.from_json(data)


def test_an_empty_ladder_is_refused():
    with pytest.raises(InputError, match="at least one"):
        Ladder("nothing", [])
