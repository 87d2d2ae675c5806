"""Writing until it holds: probabilities of the target, and who gains weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pico
from tests.edit import cases
from unlearn.algebra.low_rank import LowRank
from unlearn.edit import forms, pipeline, probabilities
from unlearn.edit.sequence import Sofar, Written
from unlearn.edit.settings import Threshold
from unlearn.edit.solve import threshold
from unlearn.edit.solve.writing import Columns
from unlearn.model.editable import EditableModel
from unlearn.model.upper import Upper
from unlearn.policy import StatisticsSpec
from unlearn.policy.settings import AlphaEdit, AlphaEditPlus


def laid_out(look_up: str, window: int = 1) -> tuple[Any, Columns]:
    model, requests = pico.pico("llama"), cases.requests()
    laid = forms.build(model, requests, requests.facts, look_up, window=window)
    return model, Columns.of(laid, model.device)


def test_target_probabilities_are_those_of_the_whole_sequence_one_at_a_time() -> None:
    model, columns = laid_out("last")
    for row, got in zip(
        columns.rows, probabilities.reply_probabilities(model, columns.rows).targets, strict=True
    ):
        chances = model.model(torch.tensor([row.ids])).logits[0].float().softmax(-1)
        start = len(row.prompt)
        want = [float(chances[start + j - 1, row.ids[start + j]]) for j in range(row.reply)]
        assert torch.allclose(got, torch.tensor(want), rtol=1e-3, atol=1e-7)


def test_a_column_answers_for_the_tokens_that_it_leads_to() -> None:
    for look_up, window in (("last", 1), ("last", 3), ("subject", 1), ("both", 1)):
        model, columns = laid_out(look_up, window)
        tokens = probabilities.reply_probabilities(model, columns.rows).targets
        got = iter(threshold.likelihoods(columns, tokens).tolist())
        for row, mine in zip(columns.rows, tokens, strict=True):
            for _, at in row.sites:
                lead = at - (len(row.prompt) - 1)
                want = mine.min() if lead < 0 else mine[lead : lead + window].min()
                assert abs(next(got) - float(want)) < 1e-6


def test_what_was_said_before_is_found_as_the_first_token_one_row_at_a_time() -> None:
    model, columns = laid_out("last")
    model.model.lm_head.weight.mul_(30)  # a pico model says nothing in particular
    old = probabilities.first_tokens(model, columns.rows)
    firsts = probabilities.reply_probabilities(model, columns.rows, old).firsts
    assert any(len(tokens) for tokens in old)
    left = iter(threshold.old_answers(columns, firsts).tolist())
    for row, tokens in zip(columns.rows, old, strict=True):
        chances = model.model(torch.tensor([row.ids])).logits[0, len(row.prompt) - 1].float().softmax(-1)
        target = row.ids[len(row.prompt)]
        said = [
            i for i, chance in enumerate(chances.tolist()) if chance > probabilities.LIKELY and i != target
        ]
        assert tokens.tolist() == said
        want = float(chances[said].sum())
        got = [next(left) for _ in row.sites]
        assert got[0] == pytest.approx(want, rel=1e-4) and not any(got[1:])


def test_what_the_values_reach_is_what_a_whole_pass_with_them_says() -> None:
    model, requests = pico.pico("llama"), cases.requests()
    for look_up in ("last", "both"):
        laid = forms.build(model, requests, requests.facts, look_up)
        columns = Columns.of(laid, model.device)
        torch.manual_seed(0)
        gains = torch.randn(model.anatomy.d_model, len(columns.weights))
        got = iter(threshold.reached(model, columns, gains, 1).tolist())
        start = 0
        for row in columns.rows:
            mine = gains[:, start : start + len(row.sites)]
            start += len(row.sites)

            def add(
                _m: object, _a: object, out: torch.Tensor, row: Any = row, mine: Any = mine
            ) -> torch.Tensor:
                for k, (_, at) in enumerate(row.sites):
                    out[0, at] += mine[:, k]
                return out

            handle = model.anatomy.block(model.model, 1).register_forward_hook(add)
            with torch.no_grad():
                chances = model.model(torch.tensor([row.ids])).logits[0].float().softmax(-1)
            handle.remove()
            begin = len(row.prompt)
            tokens = [float(chances[begin + j - 1, row.ids[begin + j]]) for j in range(row.reply)]
            for _, at in row.sites:
                lead = at - (begin - 1)
                assert next(got) == pytest.approx(
                    min(tokens) if lead < 0 else tokens[lead], rel=1e-3, abs=1e-8
                )


ROUNDS, PACE = 5, 1.5


def certain(columns: Columns) -> torch.Tensor:
    """Values that reach all that is asked."""
    return torch.ones_like(columns.weights)


def test_a_token_out_of_reach_gains_no_weight_and_little_is_asked_of_one_hardly_in_reach() -> None:
    model, columns = laid_out("last")
    columns = replace(columns, weights=torch.ones_like(columns.weights))
    likely = threshold.likelihoods(columns, probabilities.reply_probabilities(model, columns.rows).targets)
    reach = certain(columns)
    reach[::3] = 0.9 * threshold.BEGINS
    seen: list[torch.Tensor] = []
    method = until(0.999, ceiling=1e-9)
    threshold.write_until_likely(
        model, columns, Upper(model, columns.ids, 1), Sofar(), method, writes_nothing(seen), reach
    )
    assert torch.allclose(seen[-1][::3], torch.tensor(threshold.LIGHT))
    rest = torch.ones(len(reach), dtype=torch.bool)
    rest[::3] = False
    assert (seen[-1][rest] > 1.0).all()
    # Nine tenths of what a value reaches are enough.
    seen.clear()
    assert float(likely.max()) < 0.02
    reach = torch.full_like(reach, 0.0101)
    enough = likely >= threshold.FAIR * reach
    threshold.write_until_likely(
        model, columns, Upper(model, columns.ids, 1), Sofar(), until(0.999), writes_nothing(seen), reach
    )
    assert torch.equal(seen[-1] > seen[0], ~enough)


def test_the_round_that_leaves_the_fewest_short_is_kept() -> None:
    model, columns = laid_out("last")
    model.model.lm_head.weight.mul_(30)
    likely = threshold.likelihoods(columns, probabilities.reply_probabilities(model, columns.rows).targets)
    name = model.anatomy.weight_name(1)
    out, into = model.weight(name).shape
    torch.manual_seed(0)
    made: list[Written] = []

    def write(weighted: Columns, former: Written | None) -> Written:
        # The first two rounds change nothing; the third breaks the model.
        wild = LowRank(1e4 * torch.randn(out, 1), torch.randn(1, into))
        made.append(Written({name: wild} if len(made) >= 2 else {}, {}, {}))
        return made[-1]

    best = threshold.write_until_likely(
        model,
        columns,
        Upper(model, columns.ids, 1),
        Sofar(),
        until(float(likely.median())),
        write,
        certain(columns),
    )
    assert len(made) == ROUNDS and best is made[1]


def test_a_target_that_cannot_be_made_likely_is_told(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    said = "3 of 3 facts have target tokens that could not be made likely"
    for clamp, told in ((1e-6, True), (20.0, False)):
        method = AlphaEdit(layers=(1,), steps=60, lr=0.5, clamp=clamp, hard_negatives=0, rounds=1)
        corpus = StatisticsSpec(corpus=str(text), tokens=1000)
        patch = pipeline.edit(pico.pico("llama"), cases.requests(method=method, statistics=corpus))
        assert any(sentence.startswith(said) for sentence in patch.header["warnings"]) is told


def until(probability: float, ceiling: float | None = None) -> Threshold:
    return Threshold(probability, PACE, ROUNDS, ceiling)


def writes_nothing(seen: list[torch.Tensor]) -> Callable[[Columns, Written | None], Written]:
    def write(weighted: Columns, former: Written | None) -> Written:
        assert (former is None) == (not seen)
        seen.append(weighted.weights)
        return Written({}, {}, {})

    return write


def widest_gap(values: torch.Tensor) -> float:
    """Between two neighbours of the middle half that are far apart: no rounding puts one on the other's side."""
    quarter = len(values) // 4
    ordered = values.sort().values[quarter : len(values) - quarter]
    at = int(ordered.log().diff().argmax())
    return float(ordered[at : at + 2].log().mean().exp())


def write(model: EditableModel, columns: Columns, goal: Threshold, seen: list[torch.Tensor]) -> None:
    """Every round's weights, and nothing written."""
    upper = Upper(model, columns.ids, 1)
    threshold.write_until_likely(model, columns, upper, Sofar(), goal, writes_nothing(seen), certain(columns))


def test_only_columns_that_fall_short_gain_weight_and_it_ends_when_none_does() -> None:
    model, columns = laid_out("last")
    columns = replace(columns, weights=torch.ones_like(columns.weights))
    likely = threshold.likelihoods(columns, probabilities.reply_probabilities(model, columns.rows).targets)
    wanted = widest_gap(likely)
    short, step = likely < wanted, torch.where(likely < threshold.BEGINS, threshold.FAR, PACE)
    seen: list[torch.Tensor] = []
    write(model, columns, until(wanted), seen)
    assert len(seen) == ROUNDS
    for turn, weights in enumerate(seen):
        assert torch.allclose(weights[~short], torch.tensor(threshold.LIGHT))
        assert torch.allclose(weights[short], threshold.LIGHT * step[short] ** turn)
    seen.clear()
    write(model, columns, until(1e-40), seen)
    assert len(seen) == 1


@pytest.mark.parametrize(
    "kind",
    [partial(AlphaEdit, hard_negatives=0, old_answer_ceiling=None), partial(AlphaEditPlus, smoothing=0)],
)
def test_rounds_write_harder_also_where_nothing_is_kept(tmp_path: Path, kind: Any) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    model = pico.pico("llama")

    def length(rounds: int) -> float:
        method = kind(layers=(1, 2), steps=8, kept=0, target_probability=0.999, rounds=rounds)
        corpus = StatisticsSpec(corpus=str(text), tokens=1000)
        patch = pipeline.edit(model, cases.requests(method=method, statistics=corpus))
        return sum(factor.norm() for factor in patch.factors.values())

    lengths = [length(rounds) for rounds in (1, 2, 4)]
    assert lengths[0] * 1.05 < lengths[1] and lengths[1] * 1.05 < lengths[2]


def test_a_column_gains_weight_while_the_old_reply_is_above_its_ceiling() -> None:
    model, columns = laid_out("last")
    model.model.lm_head.weight.mul_(30)
    old = probabilities.first_tokens(model, columns.rows)
    left = threshold.old_answers(columns, probabilities.reply_probabilities(model, columns.rows, old).firsts)
    ceiling = widest_gap(left[left > 0])
    seen: list[torch.Tensor] = []
    write(model, columns, until(1e-40, ceiling), seen)
    grew = seen[-1] > seen[0]
    assert len(seen) == ROUNDS and torch.equal(grew, left > ceiling) and 0 < int(grew.sum()) < len(grew)
