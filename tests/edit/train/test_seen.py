"""What a training sees equals what full passes over single rows say, and its loss falls as theirs does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import families
from unlearn.algebra.moments import Directions
from unlearn.edit.train import null_space, seen, step_loss
from unlearn.edit.train.lessons import Lesson
from unlearn.edit.train.null_space import _bases
from unlearn.edit.train.seen import Seen, front_of
from unlearn.edit.train.step_loss import KEEP, TEXT, Pressure, parts_of, slope
from unlearn.edit.train.taught import KEPT, SIBLINGS, Hard, Taught
from unlearn.edit.train.token_losses import AWAY, SLACK
from unlearn.model.adapters import dense
from unlearn.model.editable import EditableModel

STEPS, LAYERS, MARGIN = 12, (1, 2), 3.0
RELATIONS = ["recipe", "smell", "recipe", "smell", "smell"]
CASES = ("gpt2", "llama", "gemma2", "qwen3", "mixtral", "gpt-oss")


@pytest.fixture(autouse=True)
def _short_fronts_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pico template's is of two tokens."""
    monkeypatch.setattr(seen, "LEAST", 1)


def lessons(model: EditableModel, begins: int, count: int) -> list[Lesson]:
    """Some rows behind the chat template's front, and some that stand alone."""
    front = front_of(model)
    bare = [(begins + n, 9 + n, 11, 12 + n % 3, 5) for n in range(count)]
    return [Lesson((*front, *ids) if n % 3 else ids, 2 + n % 2) for n, ids in enumerate(bare)]


def rows(model: EditableModel) -> Taught:
    generator = torch.Generator().manual_seed(0)
    forget, siblings, neighbours, asked, texts = (
        Hard(lessons(model, 3 + 7 * n, size), generator) for n, size in enumerate((5, 3, 6, 3, 2))
    )
    first = [torch.tensor([4, 6]) if n % 2 else torch.tensor([], dtype=torch.long) for n in range(5)]
    return Taught([], forget, RELATIONS, first, siblings, neighbours, asked, texts)


def plainly(model: EditableModel, taught: Taught, off: object, pressure: Pressure) -> float:
    """The same loss as the module states it: one row at a time, full passes, each kept row twice."""
    total = torch.zeros(())

    def said(row: Lesson) -> Tensor:
        logits: Tensor = model.model(input_ids=torch.tensor([row.ids]), use_cache=False).logits
        return logits[0, -row.reply - 1 : -1].float().log_softmax(-1)

    for part in parts_of(taught):
        drawn = part.rows.draw(part.count)
        losses = []
        for i in drawn:
            row = part.rows.rows[i]
            now = said(row)
            if part.rows is taught.forget:
                nll = -now.gather(-1, torch.tensor(row.ids[-row.reply :])[:, None])
                loss = (nll - SLACK).clamp_min(0).sum()
                if len(taught.first[i]):
                    loss = loss + AWAY * (now[0, taught.first[i]].logsumexp(-1) + MARGIN).clamp_min(0)
            else:
                with torch.no_grad(), off():  # type: ignore[operator]
                    before = said(row)
                loss = (before.exp() * (before - now)).sum()
            losses.append(loss)
        summed = torch.stack(losses)
        part.rows.note(drawn, summed)
        size = sum(part.rows.rows[i].reply for i in drawn) if part.per_token else len(drawn)
        shares = {taught.siblings: KEEP * 3 / 9, taught.neighbours: KEEP * 6 / 9}
        weights = torch.full_like(summed, shares.get(part.rows, TEXT))
        if part.rows is taught.forget:
            weights = torch.tensor([pressure.on(i) for i in drawn])
            lost = dict(zip(drawn, summed.tolist(), strict=True))
        total = total + (weights * summed).sum() / size
    pressure.note(lost)
    total.backward()
    return total.item()


@pytest.mark.parametrize(
    "siblings, neighbours, places", [(0, 100, 0), (3, 100, 3), (100, 100, SIBLINGS), (100, 5, KEPT - 5)]
)
def test_where_one_kind_of_kept_prompts_lacks_rows_the_other_has_its_places(
    siblings: int, neighbours: int, places: int
) -> None:
    drawers = [Hard([Lesson((1, 2), 1)] * n, torch.Generator()) for n in (5, siblings, neighbours, 1, 1)]
    _, first, second, *_ = parts_of(Taught([], drawers[0], RELATIONS, [], *drawers[1:]))
    assert first.rows is drawers[1] and first.count == places
    assert first.count + second.count == KEPT
    assert first.weight + second.weight == pytest.approx(KEEP)
    # A row weighs the same, whichever it is.
    assert first.weight * second.count == pytest.approx(second.weight * first.count)


@pytest.mark.parametrize("family", CASES)
def test_the_loss_curve_is_that_of_the_plain_form(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_loss, "GAIN", 1.005)  # so that the loss falls although the forms weigh more
    model = families.kept(family)
    curves: list[list[float]] = []
    ends = []
    for plain in (False, True):
        taught = rows(model)
        every = [row for part in parts_of(taught) for row in part.rows.rows]
        read = Seen(model, every[:5], every[5:], min(LAYERS), front_of(model))
        eye = Directions((torch.eye(model.anatomy.d_ff),))
        bases = _bases(model, dict.fromkeys(LAYERS, eye), front_of(model))
        with dense(model, list(bases), bases) as adapter, torch.enable_grad():
            optimiser = torch.optim.AdamW(null_space._groups(adapter, 20 * STEPS), betas=null_space.BETAS)
            adapter.follow(optimiser)
            curves.append([])
            pressure = Pressure(RELATIONS)
            for _ in range(STEPS):
                optimiser.zero_grad()
                if plain:
                    loss = plainly(model, taught, adapter.off, pressure)
                else:
                    loss = slope(read, parts_of(taught), taught.first, MARGIN, pressure)
                curves[-1].append(loss)
                optimiser.step()
            ends.append(adapter.factors())
        assert max(pressure.weights.values()) > 1  # so that it is part of what is compared
    fast, slow = map(torch.tensor, curves)
    torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-4)
    assert slow[-1] < 0.95 * slow[0]
    for name, factors in ends[0].items():
        torch.testing.assert_close(factors.dense(), ends[1][name].dense(), rtol=1e-2, atol=1e-4)


def test_nothing_is_added_at_the_front_which_would_show_without_it() -> None:
    model = families.kept("llama")
    front = front_of(model)
    assert front
    row = torch.tensor([[*front, 9, 10]])
    before = model.model(input_ids=row, output_hidden_states=True).hidden_states[-1]
    moved = {}
    for spared in (True, False):
        eye = dict.fromkeys(LAYERS, Directions((torch.eye(model.anatomy.d_ff),)))
        bases = _bases(model, eye, front if spared else ())
        with dense(model, list(bases), bases) as adapter, torch.no_grad():
            torch.manual_seed(0)
            groups = [group["params"][0] for group in adapter.groups]
            optimiser = torch.optim.SGD(groups, lr=1.0)
            adapter.follow(optimiser)
            for update in groups:
                update.normal_()
            optimiser.step()
            now = model.model(input_ids=row, output_hidden_states=True).hidden_states[-1]
        moved[spared] = (now - before).norm(dim=-1)[0] / before.norm(dim=-1)[0]
    assert moved[True][: len(front)].max() < 1e-4 < 1e-2 < moved[True][-1]
    assert moved[False][: len(front)].max() > 1e-2
