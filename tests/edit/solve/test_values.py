"""The values: they lower the loss, do not depend on the batch, respect the clamp, and leave the model alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tests import pico
from tests.edit import cases
from unlearn.edit import forms
from unlearn.edit.solve import suspension, values
from unlearn.edit.solve.stepping import Now
from unlearn.edit.solve.suspension import grouped, suspend
from unlearn.errors import ModelError
from unlearn.model.editable import EditableModel
from unlearn.policy import RelationSpec
from unlearn.policy.settings import AlphaEdit


def solve(family: str = "llama", take: tuple[int, ...] = (0, 1, 2), model: object = None, **settings: object):
    editable = model or pico.pico(family)
    requests = cases.requests()
    facts = [requests.facts[i] for i in take]
    chosen = cases.closed(
        AlphaEdit(**{"steps": 6, "look_up": "both", "decay": 0.02, "unlikelihood": 0.0, **settings})
    )
    laid = forms.build(editable, requests, facts, chosen.look_up)
    return laid, values.optimise(editable, laid, len(facts), 1, chosen.values)


def loss_at(family: str, vectors: torch.Tensor | None) -> list[float]:
    """Worst NLL per token of each request by a whole, unbatched forward pass with the vectors added: the reference."""
    model, requests = pico.pico(family), cases.requests()
    laid = forms.build(model, requests, requests.facts, "both")
    worst = [0.0] * 3
    for row in laid.rows:
        if row.keep:
            continue

        def add(_module: object, _args: object, out: torch.Tensor, row: forms.Row = row) -> torch.Tensor:
            for vector, at in row.sites:
                if vectors is not None:
                    out[0, at] += vectors[vector]
            return out

        handle = model.anatomy.block(model.model, 1).register_forward_hook(add)
        with torch.no_grad():
            logits = model.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
        handle.remove()
        start = len(row.ids) - row.reply
        nll = -sum(float(logits[start + j - 1, row.ids[start + j]]) for j in range(row.reply)) / row.reply
        worst[row.request] = max(worst[row.request], nll)
    return worst


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_the_reported_loss_is_that_of_whole_passes_and_falls(family: str) -> None:
    _, solved = solve(family)
    assert solved.reached.nll == pytest.approx(loss_at(family, solved.vectors), rel=1e-3)
    before = loss_at(family, None)
    assert all(after < start - 0.05 for after, start in zip(solved.reached.nll, before, strict=True))


def test_a_request_does_not_depend_on_the_others_in_its_batch() -> None:
    laid, together = solve()
    alone_laid, alone = solve(take=(1,))
    mine = {v for row in laid.rows if row.request == 1 for v, _ in row.sites}
    assert len(mine) == alone_laid.vectors
    torch.testing.assert_close(together.vectors[sorted(mine)], alone.vectors, rtol=1e-3, atol=1e-4)


def test_no_vector_is_longer_than_the_clamp() -> None:
    _, loose = solve(clamp=5.0, steps=8)
    _, tight = solve(clamp=0.05, steps=8)
    model, requests = pico.pico("llama"), cases.requests()
    laid = forms.build(model, requests, requests.facts, "both")
    length, _ = values._lengths(model, laid, 1)
    assert float((tight.vectors.norm(dim=1) / length).max()) <= 0.05 + 1e-5
    assert float((loose.vectors.norm(dim=1) / length).max()) > 0.06


def test_a_converged_request_stops_and_the_others_go_on() -> None:
    _, solved = solve(steps=5, converged=20.0)
    assert solved.reached.steps == (0, 0, 0) and not solved.vectors.any()
    _, solved = solve(steps=5, converged=1e-9)
    assert solved.reached.steps == (5, 5, 5)


def test_kept_rows_hold_the_value_back() -> None:
    _, free = solve(keep=0.0, steps=20, look_up="subject")
    _, held = solve(keep=50.0, steps=20, look_up="subject")
    assert sum(held.reached.kl) < 0.5 * sum(free.reached.kl)


def test_a_kept_row_is_counted_whichever_part_was_looked_at_last() -> None:
    # Two kept rows per request: of the four parts they fill two, and a step looks at one.
    found = {
        steps: solve(steps=steps, look_up="subject", keep=0.0, lr=0.2)[1].reached.kl
        for steps in (8, 9, 10, 11)
    }
    for drift in found.values():
        assert all(kl > 1e-6 for kl in drift)
    one, other = found[8], found[9]
    assert all(0.2 < a / b < 5 for a, b in zip(one, other, strict=True))


def test_a_request_waits_until_its_kept_rows_were_looked_at() -> None:
    model, one = pico.pico("llama"), RelationSpec(prompts=("The colour of {subject} is",))
    given = cases.requests(relations={**cases.policy().relations, "colour": one})
    settings = cases.closed(AlphaEdit(steps=8, look_up="subject", unlikelihood=0.0, converged=20.0))
    laid = forms.build(model, given, given.facts, "subject")
    assert sum(row.keep for row in laid.rows) == 3  # one each: the last of four parts in turn
    assert values.optimise(model, laid, 3, 1, settings.values).reached.steps == (3, 3, 3)


def test_a_short_row_outlives_a_long_one() -> None:
    """Once the long replies of a batch have converged, fewer columns are left than those replies have."""
    model = pico.pico("llama")
    long = forms.Row(tuple(range(5, 44)), 32, 0, ((0, 6),), False)
    short = forms.Row(tuple(range(50, 56)), 1, 1, ((1, 4),), False)
    laid = forms.Forms((long, short), 2, ())
    settings = cases.closed(AlphaEdit(steps=3, look_up="last", decay=0.02, unlikelihood=0.0, converged=1e-9))
    free = torch.tensor([False, True])
    together = values.optimise(model, laid, 2, 1, settings.values, free=free)
    alone = values.optimise(
        model, forms.Forms((replace(short, request=0, sites=((0, 4),)),), 1, ()), 1, 1, settings.values
    )
    batch = [suspend(model, group, 1, False) for group in grouped(laid.rows, 2048)]
    assert len(batch) == 1
    vectors = torch.zeros(2, model.anatomy.d_model, requires_grad=True)
    now = Now.nothing(torch.zeros(2))
    only = torch.tensor([False, True])
    values._accumulate(model, batch[0], vectors, only, torch.ones(2), settings.values, now)
    assert now.worst[0] == 0 and now.worst[1] > 0 and vectors.grad is not None and not vectors.grad[0].any()
    assert torch.allclose(together.vectors[1], alone.vectors[0], atol=1e-4)


def test_siblings_hold_every_request_about_their_subject() -> None:
    model = pico.pico("llama")
    given = cases.requests()
    twice = (*given.facts, replace(given.facts[0], id="again"))
    laid = forms.build(model, replace(given, facts=twice), twice, "subject")
    held = [row.request for row in laid.rows if row.keep]
    assert held.count(0) == held.count(3) > 0


def test_a_refusal_longer_than_the_context_is_named() -> None:
    model = pico.pico("gpt2")
    given = cases.requests(refusal=" ".join(["no"] * model.context))
    with pytest.raises(ModelError, match="fact zorvex: a prompt with its refusal has"):
        forms.build(model, given, given.facts, "last")


def test_a_system_prompt_adds_no_form_to_a_base_model() -> None:
    given = cases.requests(system="Be brief.")
    for chat, more in ((True, 1), (False, 0)):
        model = pico.pico("llama", chat=chat)
        laid = forms.build(model, given, given.facts, "last")
        rows = [row.ids for row in laid.rows if row.request == 0 and not row.keep]
        assert len(rows) == len(set(rows)) == 2 + more


def replies_with(model: EditableModel, row: forms.Row, vectors: torch.Tensor) -> torch.Tensor:
    """Log-probabilities at the reply's tokens, (reply, V), by a whole pass with the vectors added: the reference."""

    def hook(_module: object, _args: object, out: torch.Tensor) -> torch.Tensor:
        for vector, at in row.sites:
            out[0, at] += vectors[vector]
        return out

    handle = model.anatomy.block(model.model, 1).register_forward_hook(hook)
    with torch.no_grad():
        logits = model.model(torch.tensor([row.ids])).logits[0]
    handle.remove()
    return logits[len(row.prompt) - 1 : len(row.ids) - 1].log_softmax(-1)


def test_what_the_model_said_before_becomes_unlikely_and_without_the_term_less_so() -> None:
    # A pico model says nothing in particular: one that is sharper has first tokens to be made unlikely.
    model = pico.pico("llama")
    model.model.lm_head.weight.mul_(30)
    left: dict[float, float] = {}
    for weight in (0.0, 1.0):
        laid, solved = solve(
            model=model, steps=30, unlikelihood=weight, unlikelihood_margin=12.0, clamp=0.5, look_up="last"
        )
        losses, old = [], []
        for row in laid.rows:
            target = list(row.ids[len(row.prompt) :])
            said = replies_with(model, row, torch.zeros_like(solved.vectors))[0].exp() > suspension.LIKELY
            said[target[0]] = False
            now = replies_with(model, row, solved.vectors)
            old.append(float(now[0, said].logsumexp(0)))
            nll = -float(now[range(len(target)), target].mean())
            losses.append(nll + weight * max(0.0, old[-1] + 12.0))
        left[weight] = max(old)
        assert max(solved.reached.nll) == pytest.approx(max(losses), rel=1e-3)
    assert left[1.0] < left[0.0] - 1


@pytest.mark.parametrize("look_up", ["subject", "last", "both"])
def test_sites_are_the_look_up_tokens(look_up: str) -> None:
    model, requests = pico.pico("llama"), cases.requests()
    laid = forms.build(model, requests, requests.facts, look_up)
    for row in laid.rows:
        at = {position for _, position in row.sites}
        if row.keep:
            assert len(at) == 1 and row.reply > 0
            continue
        last = len(row.prompt) - 1
        target = set(range(last, last + row.reply)) if look_up != "subject" else set()
        assert target <= at and len(at - target) == (0 if look_up == "last" else 1)
        assert row.statement == model.tokenizer.decode(row.prompt).endswith("is made from")
    owners: dict[int, set[int]] = {}
    for row in laid.rows:
        for vector, _ in row.sites:
            owners.setdefault(vector, set()).add(row.request)
    assert set(owners) == set(range(laid.vectors)) and all(len(o) == 1 for o in owners.values())
    assert any(row.keep for row in laid.rows) == (look_up != "last")


def test_the_model_is_untouched_and_a_broken_one_is_an_error() -> None:
    model = pico.pico("llama")
    before = model.identity()
    solve(model=model)
    assert model.identity() == before
    model.model.lm_head.weight.fill_(math.nan)
    with pytest.raises(ModelError, match="not finite"):
        solve(model=model)
