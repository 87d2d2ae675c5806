"""The one equation against the published dense formulas, and by the property that each theorem promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from tests.algebra.problems import EXACT, SINGLE, distance, problem, published_ridge, sizes
from unlearn.algebra.low_rank import LowRank
from unlearn.algebra.moments import Projector, Spectrum, Whitener
from unlearn.algebra.write import Kept, condense, project, write, yielding


@settings(max_examples=25, deadline=None)
@given(size=sizes, ridge=st.floats(1e-3, 10), share=st.floats(0.2, 0.99))
def test_alphaedit_is_the_published_system(size: tuple[int, ...], ridge: float, share: float) -> None:
    keys, residuals, earlier, second = problem(size)
    spectrum = Spectrum.of(second)
    kept = min(spectrum.kept_by_energy(share), len(second) - 1)
    metric = Projector.null_space(spectrum, kept)
    delta = write(keys, residuals, metric, ridge, earlier).dense()
    dense = reference.projector(second, kept)
    l2 = published_ridge(ridge, keys, metric)
    assert distance(delta, reference.alphaedit(keys, residuals, dense, l2, earlier)) < EXACT
    absolute = write(keys, residuals, metric, l2, earlier, absolute=True).dense()
    assert distance(absolute, delta) < EXACT
    single = write(keys.float(), residuals.float(), metric, ridge, earlier.float()).dense()
    assert distance(single, delta) < SINGLE
    if earlier.shape[1]:  # the control: without the earlier keys it is another update
        assert distance(write(keys, residuals, metric, ridge).dense(), delta) > 1e-6


@settings(max_examples=25, deadline=None)
@given(size=sizes, ridge=st.floats(1e-2, 10))
def test_the_inverse_metric_is_memit_and_with_earlier_keys_sequential_memit(
    size: tuple[int, ...], ridge: float
) -> None:
    keys, residuals, earlier, second = problem(size)
    metric = Whitener(Spectrum.of(second), floor=0.0)
    weight = published_ridge(ridge, keys, metric)
    for kept in (earlier[:, :0], earlier):
        delta = write(keys, residuals, metric, ridge, kept).dense()
        assert distance(delta, reference.memit(keys, residuals, second, weight, kept)) < EXACT
        single = write(keys.float(), residuals.float(), metric, ridge, kept.float()).dense()
        assert distance(single, delta) < SINGLE
        assert (
            distance(reference.memit(keys, residuals, second, 2 * weight, kept), delta) > 1e-6
        )  # the control
    if earlier.shape[1]:  # the control: MEMIT that forgets what it wrote before
        assert distance(write(keys, residuals, metric, ridge).dense(), delta) > 1e-6


@settings(max_examples=25, deadline=None)
@given(size=sizes)
def test_one_key_without_ridge_is_rome_and_meets_its_constraint(size: tuple[int, ...]) -> None:
    keys, residuals, _, second = problem(size)
    key, residual = keys[:, :1], residuals[:, :1]
    metric = Whitener(Spectrum.of(second), floor=0.0)
    delta = write(key, residual, metric, 0.0).dense()
    assert distance(delta, reference.rome(key[:, 0], residual[:, 0], second)) < EXACT
    assert distance(write(key.float(), residual.float(), metric, 0.0).dense(), delta) < SINGLE
    assert distance(delta @ key, residual) < EXACT
    # The controls: another key, a ridge, and C left out (but the constraint is met without C as well).
    assert distance(delta @ -key, residual) > 1
    assert distance(write(key, residual, metric, 0.1).dense() @ key, residual) > 1e-3
    assert distance(reference.rome(key[:, 0], residual[:, 0], torch.eye(len(second)).double()), delta) > 1e-6


@settings(max_examples=25, deadline=None)
@given(size=sizes, ridge=st.floats(1e-5, 1))
def test_emmet_is_the_published_formula_and_approaches_equality(size: tuple[int, ...], ridge: float) -> None:
    keys, residuals, _, second = problem(size)
    metric = Whitener(Spectrum.of(second), floor=0.0)
    delta = write(keys, residuals, metric, ridge).dense()
    absolute = published_ridge(ridge, keys, metric)
    assert distance(delta, reference.emmet(keys, residuals, second, absolute)) < EXACT
    assert distance(write(keys.float(), residuals.float(), metric, ridge).dense(), delta) < SINGLE * max(
        1, 1e-2 / ridge
    )
    assert (
        distance(reference.emmet(keys, residuals, second, 0.0), delta) > 1e-9
    )  # the control: the ridge is there
    misses = [
        distance(write(keys, residuals, metric, r).dense() @ keys, residuals) for r in (1, 1e-2, 1e-4, 0)
    ]
    assert misses == sorted(misses, reverse=True) and misses[-1] < 1e-7 < misses[0]


@settings(max_examples=15, deadline=None)
@given(size=sizes, shift=st.floats(1e-3, 10))
def test_the_shift_is_a_penalty_on_the_updates_length(size: tuple[int, ...], shift: float) -> None:
    """ENCORE: lambda C + lambda_n I."""
    keys, residuals, earlier, second = problem(size)
    spectrum = Spectrum.of(second)
    added = shift * float(spectrum.values.mean()) * torch.eye(len(second), dtype=torch.float64)
    delta = write(keys, residuals, Whitener(spectrum, 0.0, shift), 0.5, earlier, absolute=True).dense()
    assert distance(delta, reference.memit(keys, residuals, second + added, 0.5, earlier)) < EXACT
    plain = write(keys, residuals, Whitener(spectrum, 0.0), 0.5, earlier, absolute=True).dense()
    assert delta.norm() < plain.norm()


@settings(max_examples=15, deadline=None)
@given(size=sizes, ridge=st.floats(0, 1))
def test_kept_directions_are_left_alone(size: tuple[int, ...], ridge: float) -> None:
    keys, residuals, _, second = problem(size)
    spectrum = Spectrum.of(second)
    kept = max(1, len(second) // 3)
    delta = write(keys, residuals, Projector.null_space(spectrum, kept), ridge).dense()
    leading = spectrum.vectors[:, :kept]
    assert float((delta @ leading).norm() / delta.norm()) < EXACT
    unprotected = write(keys, residuals, Whitener(spectrum), max(ridge, 0.1)).dense()  # the control
    assert float((unprotected @ leading).norm() / unprotected.norm()) > 1e-6


@settings(max_examples=15, deadline=None)
@given(size=sizes)
def test_projection_is_delta_times_p_and_changes_nothing_inside_it(size: tuple[int, ...]) -> None:
    keys, residuals, earlier, second = problem(size)
    spectrum = Spectrum.of(second)
    kept = max(1, len(second) // 3)
    projector, dense = Projector.null_space(spectrum, kept), reference.projector(second, kept)
    free = write(keys, residuals, Whitener(spectrum), 0.1, earlier)
    assert distance(project(free, projector).dense(), free.dense() @ dense) < EXACT
    single = LowRank(free.left.float(), free.right.float())
    assert distance(project(single, projector).dense(), free.dense() @ dense) < SINGLE
    assert distance(free.dense(), free.dense() @ dense) > 1e-6  # the control: it was not inside
    inside = write(keys, residuals, projector, 0.1, earlier)
    assert distance(project(inside, projector).dense(), inside.dense()) < EXACT


@settings(max_examples=15, deadline=None)
@given(size=sizes, order=st.randoms(use_true_random=False), name=st.sampled_from(["P", "C^-1"]))
def test_the_order_of_requests_does_not_matter(size: tuple[int, ...], order: object, name: str) -> None:
    keys, residuals, earlier, second = problem(size)
    spectrum = Spectrum.of(second)
    metric = Projector.null_space(spectrum, len(second) // 3) if name == "P" else Whitener(spectrum)
    shuffled = list(range(keys.shape[1]))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    one = write(keys, residuals, metric, 0.1, earlier).dense()
    other = write(keys[:, shuffled], residuals[:, shuffled], metric, 0.1, earlier.flip(1)).dense()
    assert distance(other, one) < EXACT
    if shuffled != sorted(shuffled):  # the control: residuals that no longer belong to their keys
        assert distance(write(keys[:, shuffled], residuals, metric, 0.1, earlier).dense(), one) > 1e-6


@settings(max_examples=15, deadline=None)
@given(size=sizes, seed=st.integers(0, 99))
def test_a_weight_is_so_many_copies_of_a_kept_key(size: tuple[int, ...], seed: int) -> None:
    keys, residuals, earlier, second = problem(size)
    metric = Projector.null_space(Spectrum.of(second), len(second) // 3)
    torch.manual_seed(seed)
    times = torch.randint(0, 4, (earlier.shape[1],))
    weighted = write(keys, residuals, metric, 0.1, earlier * times.sqrt()).dense()
    copied = write(keys, residuals, metric, 0.1, earlier.repeat_interleave(times, 1)).dense()
    assert distance(weighted, copied) < EXACT
    if (times != 1).any():  # the control
        assert distance(write(keys, residuals, metric, 0.1, earlier).dense(), copied) > 1e-8


@settings(max_examples=15, deadline=None)
@given(size=sizes, many=st.integers(0, 60))
def test_condensed_keys_are_kept_as_the_many_were(size: tuple[int, ...], many: int) -> None:
    keys, residuals, _, second = problem(size)
    earlier = torch.randn(len(second), many, dtype=torch.float64)
    few = condense(earlier)
    assert few.shape[1] <= len(second)
    metric = Projector.null_space(Spectrum.of(second), len(second) // 3)
    whole = write(keys, residuals, metric, 0.1, earlier).dense()
    assert distance(write(keys, residuals, metric, 0.1, few).dense(), whole) < EXACT
    if few.shape[1] > 1:  # the control: with one column less it is another update
        assert distance(write(keys, residuals, metric, 0.1, few[:, 1:]).dense(), whole) > 1e-9


def test_kept_keys_yield_to_the_requests_that_they_conflict_with() -> None:
    keys = torch.eye(4, dtype=torch.float64)[:, :2]
    kept = torch.tensor([[3.0, 0, 1], [0, 0, 1], [0, 2, 0], [0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(yielding(kept, keys), torch.tensor([0, 1, 1 - 0.5**0.5], dtype=torch.float64))
    torch.testing.assert_close(yielding(-7 * kept, keys), yielding(kept, keys))


def test_zero_residuals_write_nothing() -> None:
    keys, residuals, earlier, second = problem((20, 5, 3, 4, 0))
    spectrum = Spectrum.of(second)
    for metric in (Projector.null_space(spectrum, 6), Whitener(spectrum)):
        assert not write(keys, torch.zeros_like(residuals), metric, 0.1, earlier).dense().any()
        assert write(keys, residuals, metric, 0.1, earlier).dense().any()


def test_ridge_to_zero_approaches_equality_and_kept_keys_stay() -> None:
    keys, residuals, earlier, second = problem((30, 5, 3, 4, 1))
    metric = Projector.null_space(Spectrum.of(second), 6)
    misses = [
        distance(write(keys, residuals, metric, r, earlier).dense() @ keys, residuals)
        for r in (1, 1e-2, 1e-4, 0)
    ]
    assert misses == sorted(misses, reverse=True) and misses[-1] < EXACT < misses[0]
    kept = write(keys, residuals, metric, 0.0, earlier).dense() @ earlier
    assert float(kept.norm()) < EXACT
    assert float((write(keys, residuals, metric, 0.0).dense() @ earlier).norm()) > 1e-3


def test_two_requests_with_one_key_get_the_least_squares_compromise() -> None:
    keys, residuals, _, second = problem((20, 5, 1, 0, 2))
    twice, both = torch.cat([keys, keys], 1), torch.cat([residuals, -residuals / 2], 1)
    delta = write(twice, both, Projector.null_space(Spectrum.of(second), 5), 0.0).dense()
    assert distance(delta @ keys, residuals / 4) < EXACT


def test_a_patch_of_n_requests_has_rank_n() -> None:
    keys, residuals, earlier, second = problem((40, 12, 4, 6, 3))
    delta = write(keys, residuals, Projector.null_space(Spectrum.of(second), 10), 0.1, earlier)
    assert delta.rank == 4 and int(torch.linalg.matrix_rank(delta.dense())) == 4
    assert abs(delta.norm() - float(delta.dense().norm())) < 1e-9 * delta.norm()


def test_sums_never_have_more_columns_than_the_weight_has_rows() -> None:
    torch.manual_seed(0)
    parts = [LowRank(torch.randn(6, 4).double(), torch.randn(4, 9).double()) for _ in range(5)]
    total = parts[0]
    for part in parts[1:]:
        total = total.plus(part)
        assert total.rank <= 8
    assert distance(total.dense(), sum((part.dense() for part in parts), torch.zeros(6, 9).double())) < 1e-12
    assert parts[0].plus(LowRank(parts[1].left[:, :2], parts[1].right[:2])).rank == 6


def test_columns_must_match() -> None:
    keys, residuals, _, second = problem((10, 4, 3, 2, 4))
    metric = Whitener(Spectrum.of(second))
    with pytest.raises(ValueError, match="3 keys but 2 residuals"):
        write(keys, residuals[:, :2], metric, 0.1)


@given(
    st.integers(4, 12),
    st.integers(2, 20),
    st.integers(1, 30),
    st.integers(8, 40),
    st.floats(0.01, 2.0),
    st.integers(0, 999),
)
@settings(max_examples=30, deadline=None)
def test_many_columns_give_the_same_update_as_the_equation(
    d_in: int, d_out: int, n: int, m: int, ridge: float, seed: int
) -> None:
    torch.manual_seed(seed)
    keys, kept = (torch.randn(d_in, count, dtype=torch.float64) for count in (n, m + d_in))
    residuals = torch.randn(d_out, n, dtype=torch.float64)
    second = torch.cov(torch.randn(d_in, 4 * d_in, dtype=torch.float64))
    for metric in (Projector.null_space(Spectrum.of(second), d_in // 3), Whitener(Spectrum.of(second))):
        both = torch.cat([keys, kept], 1)
        a = metric.apply(torch.eye(d_in, dtype=torch.float64))
        scale = ridge * (keys * (a @ keys)).sum(0).mean()
        gram = scale * torch.eye(both.shape[1], dtype=torch.float64) + both.T @ a @ both
        padded = torch.cat([residuals, torch.zeros(d_out, kept.shape[1], dtype=torch.float64)], 1)
        dense = padded @ torch.linalg.solve(gram, both.T @ a)
        found = write(keys, residuals, metric, ridge, kept)
        assert torch.allclose(found.dense(), dense, rtol=0, atol=1e-8 * float(dense.norm()))
        assert found.rank <= max(n, d_out)
        # Control: without the kept keys it is another update.
        assert not torch.allclose(
            write(keys, residuals, metric, ridge).dense(), dense, atol=1e-4 * float(dense.norm())
        )


def test_writes_that_keep_the_same_keys_multiply_them_out_once() -> None:
    torch.manual_seed(3)
    keys, kept = torch.randn(12, 4, dtype=torch.float64), torch.randn(12, 40, dtype=torch.float64)
    residuals = torch.randn(6, 4, dtype=torch.float64)
    metric = Projector.null_space(Spectrum.of(torch.cov(torch.randn(12, 90, dtype=torch.float64))), 4)
    shared = Kept(kept)
    for weight in (0.5, 1.0, 3.0):
        alone = write(weight * keys, residuals, metric, 0.1, kept).dense()
        assert distance(write(weight * keys, residuals, metric, 0.1, shared).dense(), alone) < EXACT
    first = shared.gram
    assert shared.gram is first
    # The control: others are other updates.
    lighter = write(keys, residuals, metric, 0.1, 0.1**0.5 * kept).dense()
    assert distance(lighter, write(keys, residuals, metric, 0.1, shared).dense()) > 1e-6
