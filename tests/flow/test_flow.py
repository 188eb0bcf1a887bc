"""Values of method A.8 and A.9."""

import pytest
import torch

from kaleidoscene.flow.guidance import guide
from kaleidoscene.flow.path import (
    data_from_velocity,
    interpolate,
    masked_mean_square,
    noise_from_velocity,
    velocity,
    velocity_from_data,
)
from kaleidoscene.flow.schedules import Schedule, linear_quadratic
from kaleidoscene.flow.solvers import integrate
from kaleidoscene.flow.timesteps import TimestepSampler, mode, shift


def test_path_conversions_are_each_others_inverse():
    data, noise = torch.randn(2, 2, 3, 4, 5, 6, dtype=torch.float64)
    t = torch.tensor([0.2, 0.9], dtype=torch.float64)
    z, v = interpolate(data, noise, t), velocity(data, noise)
    torch.testing.assert_close(data_from_velocity(z, v, t), data)
    torch.testing.assert_close(noise_from_velocity(z, v, t), noise)
    torch.testing.assert_close(velocity_from_data(z, data, t), v)


def test_ends_of_the_path():
    data, noise = torch.randn(2, 2, 3, 4, 5)
    torch.testing.assert_close(interpolate(data, noise, torch.zeros(2)), data)
    torch.testing.assert_close(interpolate(data, noise, torch.ones(2)), noise)


def test_loss_is_the_mean_over_counted_views_and_gives_others_no_gradient():
    prediction = torch.randn(2, 3, 2, 4, 5, requires_grad=True)
    target = torch.randn(2, 3, 2, 4, 5)
    counts = torch.tensor([[True, False, True], [False, False, True]])
    loss = masked_mean_square(prediction, target, counts)
    torch.testing.assert_close(loss, (prediction - target)[counts].square().mean())
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert (gradient[~counts] == 0).all()
    assert (gradient[counts] != 0).all()


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (TimestepSampler(), [0.0203, 0.0247, 0.0308, 0.0398, 0.0543, 0.0808, 0.1395, 0.2342, 0.2060, 0.1697]),
        (
            TimestepSampler(distribution="uniform"),
            [0.0357, 0.0412, 0.0481, 0.0568, 0.0682, 0.0833, 0.1042, 0.1339, 0.1786, 0.25],
        ),
    ],
)
def test_ten_bin_probabilities(sampler, expected):
    t = sampler.sample(400_000, torch.Generator().manual_seed(0))
    found = torch.histc(t, 10, 0, 1) / len(t)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=2.5e-3)  # 3 sigma is 2.0e-3


def test_final_sampler_has_the_stated_mean_and_median():
    t = TimestepSampler().sample(400_000, torch.Generator().manual_seed(1))
    assert t.mean().item() == pytest.approx(0.699, abs=2e-3)
    assert t.median().item() == pytest.approx(0.75, abs=2e-3)


def test_mode_and_shift_stay_in_range_and_are_monotone():
    u = torch.linspace(0, 1, 1001, dtype=torch.float64)
    for scale in (-1.0, 0.8, 1.75):
        f = mode(u, scale)
        torch.testing.assert_close(
            f[[0, 500, 1000]], torch.tensor([1, 0.5, 0], dtype=torch.float64), rtol=0, atol=1e-12
        )
        assert (f.diff() <= 1e-12).all()
        assert ((shift(f, 3.0) >= -1e-12) & (shift(f, 3.0) <= 1 + 1e-12)).all()


def test_logit_normal_has_median_one_half():
    t = TimestepSampler(distribution="logit_normal", shift=1.0).sample(100_000, torch.Generator().manual_seed(0))
    assert t.median().item() == pytest.approx(0.5, abs=5e-3)


@pytest.mark.parametrize(("scale", "sigma"), [(1.8, 3.0), (-1.1, 3.0), (0.8, 0.0)])
def test_samplers_out_of_range_are_refused(scale: float, sigma: float):
    with pytest.raises(ValueError, match="must be"):
        TimestepSampler(mode_scale=scale, shift=sigma)


def test_linear_quadratic_values():
    times = linear_quadratic(50, 0.025)
    expected = {0: 1.0, 1: 0.999, 24: 0.976, 25: 0.975, 26: 0.97248, 30: 0.932, 48: 0.14792, 49: 0.07548, 50: 0.0}
    for index, value in expected.items():
        assert times[index].item() == pytest.approx(value, abs=1e-9)
    wider = linear_quadratic(50, 0.1)
    assert [round(wider[i].item(), 5) for i in (24, 25, 49)] == [0.904, 0.9, 0.06672]


def test_threshold_one_half_is_the_linear_schedule():
    torch.testing.assert_close(linear_quadratic(10, 0.5), torch.linspace(1, 0, 11, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["linspace", "trailing", "linear_quadratic"])
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_schedules_fall_to_zero(kind, steps):
    times = Schedule(kind=kind, steps=steps).times()
    assert len(times) == steps + 1
    assert (times.diff() < 0).all()
    assert times[-1] == 0
    assert times[0] <= 1


def test_trailing_has_even_strides_from_pure_noise():
    """1000, 980, ... 20 on a clock of 1000; begun a stride lower, a step's worth of noise would never leave."""
    times = Schedule(kind="trailing", steps=50).times()
    assert times[0].item() == 1 and times[1].item() == pytest.approx(0.98) and times[49].item() == pytest.approx(0.02)


@pytest.mark.parametrize("kind", ["linspace", "trailing", "linear_quadratic"])
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_every_schedule_takes_pure_noise_to_data_on_a_straight_field(kind, steps):
    data, noise = torch.randn(2, 3, 4, dtype=torch.float64)
    found = integrate(lambda x, t: noise - data, noise, Schedule(kind=kind, steps=steps).times())
    torch.testing.assert_close(found, data, rtol=0, atol=0.01)  # linspace starts at 999 of 1000


def test_euler_is_exact_on_the_straight_path_and_heun_on_a_linear_field():
    data, noise = torch.randn(2, 3, 4, dtype=torch.float64)
    times = Schedule(steps=7).times()
    torch.testing.assert_close(integrate(lambda x, t: noise - data, noise, times), data)
    # dx/dt = 2 t has the solution x(0) = x(1) - 1; Heun integrates it exactly but for the last Euler step and the clip.
    heun = integrate(
        lambda x, t: torch.full_like(x, 2 * t), noise, torch.linspace(1, 0, 200, dtype=torch.float64), solver="heun"
    )
    torch.testing.assert_close(heun, noise - 1, rtol=0, atol=1e-3)


def test_heun_converges_faster_than_euler():
    times = torch.linspace(1, 0, 21, dtype=torch.float64)
    start = torch.ones(1, dtype=torch.float64)
    exact = torch.exp(torch.tensor(-1.0))
    error = {s: (integrate(lambda x, t: x, start, times, solver=s) - exact).abs().item() for s in ("euler", "heun")}
    assert error["heun"] < error["euler"] / 5


def test_the_field_is_asked_inside_the_trained_range():
    asked = []

    def field(x, t):
        asked.append(t)
        return x

    integrate(field, torch.ones(1), Schedule(steps=3).times(), solver="heun")
    assert max(asked) == 0.999
    assert min(asked) >= 0.001


def test_guidance_formula_and_its_short_cuts():
    x = torch.randn(3)
    asked = []

    def conditional(x, t):
        asked.append("c")
        return 2 * x

    def unconditional(x, t):
        asked.append("u")
        return x

    torch.testing.assert_close(guide(conditional, unconditional, 1.5)(x, 0.5), x + 1.5 * (2 * x - x))
    asked.clear()
    assert guide(conditional, unconditional, 1.0)(x, 0.5).equal(2 * x)
    assert asked == ["c"]
