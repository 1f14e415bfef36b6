import pytest
import torch
from generated import det, golden

from uav_core import InputError
from uav_core.sampling import schedule

GOLDEN = golden()


def test_tables_golden():
    table = schedule.alphas_cumprod()
    torch.testing.assert_close(table, GOLDEN["schedule/alphas_cumprod"], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        table, GOLDEN["schedule/low_res_alphas_cumprod"], rtol=1e-6, atol=1e-7
    )
    assert schedule.timesteps(30).tolist() == GOLDEN["schedule/timesteps30"].tolist()


@pytest.mark.parametrize("steps", [1, 2, 7, 30, 333, 500, 998, 999])
def test_timesteps_descend_inside_the_table(steps):
    grid = schedule.timesteps(steps)
    assert len(grid) == steps
    assert grid[-1] == 1
    assert grid.max() < schedule.TRAIN_STEPS
    assert (grid.diff() < 0).all()


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(1, [999]), (2, [999, 499]), (3, [999, 666, 332]), (4, [999, 749, 499, 249])],
)
def test_trailing_timesteps(steps, expected):
    """The values of diffusers' DDIMScheduler with timestep_spacing="trailing"."""
    assert schedule.timesteps(steps, trailing=True).tolist() == expected
    table = schedule.alphas_cumprod()
    landings = schedule.previous_alphas(steps, trailing=True).tolist()
    assert landings == [*table[expected[1:]].tolist(), table[0].item()]
    assert len(schedule.sigmas(steps, trailing=True)) == steps + 1


@pytest.mark.parametrize("steps", [30, 501, 998, 999])
def test_trailing_timesteps_descend_from_the_last_one(steps):
    grid = schedule.timesteps(steps, trailing=True)
    assert len(grid) == steps and grid[0] == schedule.TRAIN_STEPS - 1 and grid[-1] >= 0
    assert (grid.diff() < 0).all()


def test_sigma_form_equals_ddim():
    x, v = det("x", (1, 4, 2, 3, 3)), det("v", (1, 4, 2, 3, 3))
    steps, table = 5, schedule.alphas_cumprod()
    a, landing = table[schedule.timesteps(steps)[0]], schedule.previous_alphas(steps)[0]
    x0, eps = schedule.predict(x, v, a)
    direct = schedule.ddim_step(x0, eps, landing)
    sigma = schedule.sigmas(steps)
    big = x / a.sqrt()
    stepped = x0 + (big - x0) / sigma[0] * sigma[1]
    torch.testing.assert_close(stepped * landing.sqrt(), direct, rtol=1e-5, atol=1e-5)


def test_predict_inverts_noising():
    x0, eps, a = det("x0", (4,)), det("eps", (4,)), torch.tensor(0.3)
    noisy, v = a.sqrt() * x0 + (1 - a).sqrt() * eps, a.sqrt() * eps - (1 - a).sqrt() * x0
    got_x0, got_eps = schedule.predict(noisy, v, a)
    torch.testing.assert_close(got_x0, x0)
    torch.testing.assert_close(got_eps, eps)


def test_level_zero_still_adds_the_first_entry():
    x, n = det("x", (1, 3, 1, 4, 4)), det("n", (1, 3, 1, 4, 4))
    a = schedule.alphas_cumprod()[0]
    torch.testing.assert_close(schedule.noise_low_res(x, n, 0), a.sqrt() * x + (1 - a).sqrt() * n)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("level", [0, 1, 5, 20, 120])
def test_half_precision_adds_as_much_noise(dtype, level):
    zero, one = torch.zeros(1, dtype=dtype), torch.ones(1, dtype=dtype)
    exact = schedule.noise_low_res(torch.zeros(1), torch.ones(1), level)
    assert schedule.noise_low_res(zero, one, level).item() == pytest.approx(exact.item(), rel=4e-3)


@pytest.mark.parametrize("level", [-1, 351, 20.5])
def test_noise_level_outside_training_is_named(level):
    with pytest.raises(InputError, match=r"0 .* to 350"):
        schedule.check_noise_level(level)


@pytest.mark.parametrize("steps", [0, -3, 1000])
def test_step_count_outside_schedule(steps):
    with pytest.raises(InputError, match="1 to 999"):
        schedule.timesteps(steps)
