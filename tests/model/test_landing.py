"""What a norm lets in: the projection on an ellipsoid against brute force, its closed form on a sphere, its limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unlearn.model.landing import Landing, nearest


def case(d: int, n: int, seed: int, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    gain = torch.randn(d, dtype=torch.float64) * torch.logspace(0, -spread, d, dtype=torch.float64)
    return gain, torch.randn(d, n, dtype=torch.float64) * 3, torch.rand(n, dtype=torch.float64) + 0.5


@given(d=st.integers(2, 12), seed=st.integers(0, 10**6), spread=st.floats(0, 4))
@settings(max_examples=40)
def test_no_point_of_the_ellipsoid_is_nearer(d: int, seed: int, spread: float) -> None:
    gain, target, radius = case(d, 3, seed, spread)
    found = nearest(gain, target, radius)
    torch.testing.assert_close(found.norm(dim=0), radius)
    error = (gain[:, None] * found - target).norm(dim=0)
    for size in (2.0, 0.3, 0.03, 0.003):
        tried = found[None] + size * torch.randn(300, d, 3, dtype=torch.float64) * radius
        tried = tried * radius / tried.norm(dim=1, keepdim=True)
        assert ((gain[:, None] * tried - target).norm(dim=1) >= error * (1 - 1e-9)).all()
    pushed = target / gain[:, None]  # the control: the exact answer, cut to the right length, is not nearest
    pushed = pushed * radius / pushed.norm(dim=0)
    assert (gain[:, None] * pushed - target).norm() > error.norm()


def test_an_ellipse_agrees_with_a_search_over_its_angles() -> None:
    gain, angles = torch.tensor([2.0, -0.5]).double(), torch.linspace(0, 2 * math.pi, 200_001).double()
    points = torch.stack([gain[0] * angles.cos(), gain[1] * angles.sin()])  # (2, angles)
    for target in ([0.3, 0.2], [-3.0, 1.0], [0.0, 0.1], [0.5, 0.0], [0.0, 0.0], [1e-9, -4.0]):
        wanted = torch.tensor(target).double()[:, None]
        found = gain[:, None] * nearest(gain, wanted, torch.ones(1).double())
        best = (points - wanted).norm(dim=0).min()
        assert float((found - wanted).norm()) == pytest.approx(float(best), abs=1e-8)


@pytest.mark.parametrize("ratio", [0.1, 1.0, 3.0])
def test_on_a_sphere_share_and_cosine_are_those_of_the_page(ratio: float) -> None:
    """docs/families.md: of a change across what is added, ``ratio`` times as long, 1 / sqrt(1 + ratio^2) arrives."""
    d = 64
    y, across = torch.randn(d, 1).double(), torch.randn(d, 1).double()
    landing = Landing(gain=torch.full((d,), 1.7))
    adds = landing.added(y)
    across -= adds * (across * adds).sum() / adds.square().sum()
    wanted = across * ratio * adds.norm() / across.norm()
    got = landing.added(y + landing.residual(y, wanted)) - adds
    share = float((got * wanted).sum() / wanted.square().sum())
    assert share == pytest.approx((1 + ratio**2) ** -0.5, rel=1e-6)
    cosine = float((got * wanted).sum() / got.norm() / wanted.norm())
    assert cosine == pytest.approx(math.cos(math.atan(ratio) / 2), rel=1e-6)
    naive = landing.added(y + wanted / 1.7) - adds  # the control: the residual of a family without a norm
    assert float((naive - wanted).norm()) > float((got - wanted).norm()) - 1e-9


def test_the_length_of_the_output_is_kept_and_nothing_wanted_writes_nothing() -> None:
    torch.manual_seed(0)
    landing, y, wanted = Landing(gain=torch.rand(16) + 0.1, eps=1e-6), torch.randn(16, 4), torch.randn(16, 4)
    wanted[:, 2] = 0
    residual = landing.residual(y, wanted)
    torch.testing.assert_close((y + residual).norm(dim=0), y.norm(dim=0))
    assert not residual[:, 2].any() and residual[:, 0].any()


def test_short_outputs_are_lifted_to_where_eps_does_not_count() -> None:
    landing = Landing(gain=torch.ones(8), eps=1e-2)
    wanted = torch.full((8, 1), 1.0)
    for y in (torch.zeros(8, 1), torch.full((8, 1), 1e-4)):
        reached = landing.added(y + landing.residual(y, wanted))
        assert off(reached, wanted) < 0.01
    short = landing.added(torch.full((8, 1), 1e-4))
    assert off(short, wanted) > 0.9  # the control: eps does shorten what they add


def test_a_weight_of_zero_takes_the_surplus_length() -> None:
    """With a direction that the norm mutes, everything inside the ellipsoid is reached exactly."""
    landing = Landing(gain=torch.tensor([1.0, 1.0, 0.0, 2.0]))
    y, wanted = torch.tensor([[1.0], [-1.0], [0.5], [0.2]]), torch.tensor([[-0.3], [0.4], [0.0], [0.1]])
    got = landing.added(y + landing.residual(y, wanted)) - landing.added(y)
    torch.testing.assert_close(got, wanted)


def test_a_multiplier_is_undone_exactly() -> None:
    y, wanted = torch.randn(4, 2), torch.randn(4, 2)
    assert torch.equal(Landing().residual(y, wanted), wanted)
    assert torch.equal(Landing(0.25).residual(y, wanted), 4 * wanted)
    torch.testing.assert_close(Landing(0.22).added(Landing(0.22).residual(y, wanted)), wanted)


def off(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())
