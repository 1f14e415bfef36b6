import pytest
import torch
from generated import det

from uav_core import InputError
from uav_core.sampling.segments import Segment, combine, plan_groups, plan_segments


def literal_loop(frames: int, results) -> torch.Tensor:
    """The rule as the facts state it: every pass run, new = 0.5 old + 0.5 new where covered."""
    total, seen = torch.zeros(frames), torch.zeros(frames, dtype=torch.bool)
    for start in range(0, frames, 6) if frames > 8 else [0]:
        stop = min(start + 8, frames)
        start = max(stop - 8, 0)
        for f in range(start, stop):
            new = results(start)[f - start]
            total[f] = 0.5 * total[f] + 0.5 * new if seen[f] else new
            seen[f] = True
    return total


@pytest.mark.parametrize("frames", range(1, 45))
def test_same_weights_as_the_loop_with_repeats(frames):
    def results(start):
        return det(f"segment {start}", (8,))

    plan = plan_segments(frames)
    parts = [(s, results(s.start)[: s.stop - s.start].view(1, 1, -1, 1, 1)) for s in plan]
    got = combine(parts, torch.zeros(1, 1, frames, 1, 1)).flatten()
    torch.testing.assert_close(got, literal_loop(frames, results))


def test_no_pass_is_spent_on_a_repeat():
    assert plan_segments(13) == (Segment(0, 8), Segment(5, 13, 0.75))
    assert plan_segments(20) == (Segment(0, 8), Segment(6, 14), Segment(12, 20, 0.75))
    for frames in range(1, 60):
        starts = [s.start for s in plan_segments(frames)]
        assert len(starts) == len(set(starts))


@pytest.mark.parametrize(("length", "overlap"), [(1, 0), (4, 3), (16, 4), (5, 0)])
def test_other_lengths_cover_every_frame(length, overlap):
    for frames in range(1, 40):
        covered = {
            f for s in plan_segments(frames, length, overlap) for f in range(s.start, s.stop)
        }
        assert covered == set(range(frames))


@pytest.mark.parametrize(("frames", "length", "overlap"), [(0, 8, 2), (9, 8, 8), (9, 0, 0)])
def test_impossible_plans_are_named(frames, length, overlap):
    with pytest.raises(InputError, match="expected"):
        plan_segments(frames, length, overlap)


def test_groups():
    assert [list(g) for g in plan_groups(7, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    with pytest.raises(InputError):
        plan_groups(0, 3)
