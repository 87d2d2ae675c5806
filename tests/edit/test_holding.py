"""Writing until it holds: probabilities of the target, and who gains weight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tests import pico
from tests.edit import cases
from unlearn.edit import forms, holding
from unlearn.edit.sequence import Sofar, Written
from unlearn.edit.writing import Columns


def laid_out(look_up: str, window: int = 1) -> tuple[Any, Columns]:
    model, requests = pico.pico("llama"), cases.requests()
    laid = forms.build(model, requests, requests.facts, look_up, window=window)
    return model, Columns.of(laid, model.device)


def test_target_probabilities_are_those_of_the_whole_sequence_one_at_a_time() -> None:
    model, columns = laid_out("last")
    for row, got in zip(columns.rows, holding.target_probabilities(model, columns.rows), strict=True):
        chances = model.model(torch.tensor([row.ids])).logits[0].float().softmax(-1)
        start = len(row.prompt)
        want = [float(chances[start + j - 1, row.ids[start + j]]) for j in range(row.reply)]
        assert torch.allclose(got, torch.tensor(want), rtol=1e-3, atol=1e-7)


def test_a_column_answers_for_the_tokens_that_it_leads_to() -> None:
    for look_up, window in (("last", 1), ("last", 3), ("subject", 1), ("both", 1)):
        model, columns = laid_out(look_up, window)
        tokens = holding.target_probabilities(model, columns.rows)
        got = iter(holding.likelihoods(model, columns).tolist())
        for row, mine in zip(columns.rows, tokens, strict=True):
            for _, at in row.sites:
                lead = at - (len(row.prompt) - 1)
                want = mine.min() if lead < 0 else mine[lead : lead + window].min()
                assert abs(next(got) - float(want)) < 1e-6


def test_only_columns_that_fall_short_gain_weight_and_it_ends_when_none_does() -> None:
    model, columns = laid_out("last")
    columns = replace(columns, weights=torch.ones_like(columns.weights))
    hold = float(holding.likelihoods(model, columns).median())
    short = holding.likelihoods(model, columns) < hold
    seen: list[torch.Tensor] = []

    def write(weighted: Columns) -> Written:
        seen.append(weighted.weights)
        return Written({}, {}, {}, 1.0)  # writes nothing, so that nothing ever gets likelier

    holding.write_until_held(model, columns, Sofar(), hold, write)
    assert len(seen) == holding.ROUNDS
    for turn, weights in enumerate(seen):
        assert torch.allclose(weights[~short], torch.tensor(holding.LIGHT))
        assert torch.allclose(weights[short], torch.tensor(holding.LIGHT * holding.HEAVIER**turn))
    seen.clear()
    holding.write_until_held(model, columns, Sofar(), 0.0, write)
    assert len(seen) == 1
