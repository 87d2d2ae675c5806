"""NSE: the selection selects, the update touches the chosen neurons only, and is the published one."""

from __future__ import annotations

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests import reference
from tests.algebra.problems import EXACT, SINGLE, distance, problem, published_ridge, sizes
from unlearn.algebra.moments import Projector, Spectrum, Whitener
from unlearn.algebra.neurons import Restricted, most_active
from unlearn.algebra.write import project, write


def among(second: torch.Tensor, neurons: torch.Tensor) -> Restricted:
    return Restricted(neurons, Whitener(Spectrum.of(second[neurons][:, neurons]), floor=0.0))


@settings(max_examples=25, deadline=None)
@example(size=(6, 2, 2, 5, 0), ridge=1.0, share=0.5)  # one neuron: a pivoted solve left 1e-17 on the others
@given(size=sizes, ridge=st.floats(1e-2, 10), share=st.one_of(st.floats(0.05, 0.98), st.just(1.0)))
def test_nse_is_the_published_system(size: tuple[int, ...], ridge: float, share: float) -> None:
    keys, residuals, earlier, second = problem(size)
    neurons = most_active(keys, share)
    assert neurons.tolist() == reference.chosen_neurons(keys, share)
    metric = among(second, neurons)
    delta = write(keys, residuals, metric, ridge, earlier).dense()
    weight = published_ridge(ridge, keys, metric)
    dense = reference.nse(keys, residuals, second, weight, earlier, neurons.tolist())
    assert distance(delta, dense) < EXACT
    single = write(keys.float(), residuals.float(), metric, ridge, earlier.float()).dense()
    assert distance(single, delta) < SINGLE
    others = torch.ones(len(second), dtype=torch.bool)
    others[neurons] = False
    assert not delta[:, others].any() and (delta[:, neurons] != 0).any(0).all()
    if others.any():  # the control: without the selection every neuron is touched, and the update is another
        every = write(keys, residuals, among(second, torch.arange(len(second))), ridge, earlier).dense()
        assert every[:, others].any() and distance(every, delta) > 1e-6
    if earlier.shape[1]:  # the control: the earlier keys count
        assert distance(write(keys, residuals, metric, ridge).dense(), delta) > 1e-9


@settings(max_examples=15, deadline=None)
@given(size=sizes, share=st.floats(0.05, 0.95))
def test_the_selection_is_the_smallest_top_set_within_the_share(size: tuple[int, ...], share: float) -> None:
    keys = problem(size).keys
    chosen = most_active(keys, share)
    score = keys.abs().sum(1)
    others = [n for n in range(len(score)) if n not in chosen.tolist()]
    assert others and score[chosen].min() >= score[others].max()
    assert len(chosen) == 1 or score[chosen].sum() <= share * score.sum() * (1 + 1e-12)
    assert score[chosen].sum() + score[others].max() > share * score.sum()
    assert len(most_active(keys, 1.0)) == len(score)


def test_projection_among_the_chosen_touches_no_other_neuron() -> None:
    keys, residuals, earlier, second = problem((30, 6, 3, 2, 5))
    neurons = most_active(keys, 0.6)
    delta = write(keys, residuals, among(second, neurons), 0.1, earlier)
    spectrum = Spectrum.of(second[neurons][:, neurons])
    inside = project(delta, Restricted(neurons, Projector.null_space(spectrum, 4))).dense()
    others = [n for n in range(30) if n not in neurons.tolist()]
    assert not inside[:, others].any()
    assert float((inside[:, neurons] @ spectrum.vectors[:, :4]).norm()) < EXACT
    whole = project(delta, Projector.null_space(Spectrum.of(second), 4)).dense()  # the control
    assert whole[:, others].any()
