"""Rows in lines: each lies in one of them, sees itself and the front alone, and little else is read."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn.model.lines import Lines

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


@given(LENGTHS)
def test_every_row_lies_in_one_line_and_no_two_meet(lengths: list[int]) -> None:
    lines = Lines.of(lengths)
    for begin, size in zip(lines.begins, lengths, strict=True):
        assert begin // lines.width == (begin + size - 1) // lines.width < lines.count
    assert len(set(lines.places.tolist())) == sum(lengths)
    tokens = torch.arange(sum(lengths) * 2).unflatten(0, (-1, 2))
    assert torch.equal(lines.laid(tokens).flatten(0, 1)[lines.places], tokens)


@given(LENGTHS)
def test_no_more_is_read_than_with_a_line_for_each_row(lengths: list[int]) -> None:
    apart = Lines.apart(lengths)
    assert apart.begins == tuple(n * max(lengths) for n in range(len(lengths)))
    assert sum(lengths) <= Lines.of(lengths).tokens <= apart.tokens


@given(LENGTHS, st.integers(0, 5))
def test_a_token_sees_the_front_and_what_came_before_it_in_its_row(lengths: list[int], front: int) -> None:
    for lines in (Lines.of(lengths), Lines.apart(lengths)):
        sees = lines.sees(front)
        assert sees.shape == (lines.count, 1, lines.width, front + lines.width)
        positions = lines.positions(front)
        for begin, size in zip(lines.begins, lengths, strict=True):
            line, column = divmod(begin, lines.width)
            wanted = torch.zeros(size, front + lines.width, dtype=torch.bool)
            wanted[:, :front] = True
            wanted[:, front + column : front + column + size] = torch.ones(size, size).tril().bool()
            assert torch.equal(sees[line, 0, column : column + size], wanted)
            assert positions[line, column : column + size].tolist() == list(range(front, front + size))
        assert bool(sees.any(-1).all())  # a softmax over nothing is not a number, in padding too


def test_rows_of_a_training_step_leave_a_tenth_empty_at_most() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        short = torch.randint(18, 48, (68,), generator=generator).tolist()
        long = torch.randint(60, 145, (4,), generator=generator).tolist()
        lengths = [*short, *long]
        assert Lines.of(lengths).tokens <= sum(lengths) / 0.9
        assert Lines.apart(lengths).tokens > 2 * sum(lengths)
