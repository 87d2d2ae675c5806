"""Running statistics against those of everything at once, and UltraEdit's update against its dense published form."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from tests.algebra.problems import EXACT, SINGLE, distance
from unlearn.algebra.moments import Projector
from unlearn.algebra.running import Running, descent
from unlearn.algebra.write import write

counts = st.lists(st.integers(1, 9), min_size=1, max_size=4)


def drawn(features: int, counts: list[int]) -> list[torch.Tensor]:
    """Batches of columns whose scales and means differ from feature to feature."""
    torch.manual_seed(features + sum(counts))
    scale, mean = torch.rand(2, features, 1, dtype=torch.float64).mul(5).unbind()
    return [mean + scale * torch.randn(features, n, dtype=torch.float64) for n in counts]


@settings(max_examples=25, deadline=None)
@given(features=st.integers(1, 12), counts=counts)
def test_batches_have_the_statistics_of_all_columns_at_once(features: int, counts: list[int]) -> None:
    batches = drawn(features, counts)
    running = Running.nothing(features)
    for batch in batches:
        running = running.plus(batch)
    every = torch.cat(batches, 1)
    assert running.count == every.shape[1]
    torch.testing.assert_close(running.mean, every.mean(1))
    torch.testing.assert_close(running.deviations, (every - every.mean(1)[:, None]).square().sum(1))
    again = Running.read(running.rows())
    assert again.count == running.count and distance(again.mean, running.mean) < 1e-6
    if running.count > 2:
        normal = running.normalised(every)
        assert normal.mean(1).abs().max() < 1e-6
        torch.testing.assert_close(normal.std(1), torch.ones(features).double(), rtol=1e-4, atol=1e-4)
        assert (
            distance(Running.nothing(features).plus(batches[-1]).mean, running.mean) > 1e-6
            or len(counts) == 1
        )  # the control: the last batch alone has others


def test_what_never_varied_is_nothing() -> None:
    one = torch.tensor([[3.0], [4.0]])
    assert not Running.nothing(2).plus(one).normalised(one).any()


@settings(max_examples=25, deadline=None)
@given(d_in=st.integers(2, 20), d_out=st.integers(1, 12), counts=counts)
def test_ultra_edit_is_the_published_solve(d_in: int, d_out: int, counts: list[int]) -> None:
    """With fewer columns than d_in and with more, which are two ways through the algebra."""
    batches = drawn(d_in + d_out, [n + 1 for n in counts])
    keys, gradients = [b[:d_in] for b in batches], [b[d_in:] for b in batches]
    running = Running.nothing(d_in + d_out)
    for batch in batches:
        running = running.plus(batch)
    everywhere = Projector(torch.zeros(d_in, 0), complement=True)

    def delta(width: torch.dtype, running: Running = running) -> torch.Tensor:
        wanted = 1e-2 * descent(keys[-1], gradients[-1], running).to(width)
        return write(keys[-1].to(width), wanted, everywhere, 1.0, absolute=True).dense()

    published = reference.ultra_edit(keys, gradients, 1e-2)
    assert distance(delta(torch.float64), published) < 10 * EXACT
    assert distance(delta(torch.float32), published) < 10 * SINGLE
    same = Running(running.count, 0 * running.mean, torch.full_like(running.mean, running.count - 1))
    assert distance(delta(torch.float64, same), published) > 1e-3  # the control: nothing normalised
