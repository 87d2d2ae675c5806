"""The scorer gives what plain passes of one row at a time give, whatever is read together."""

from __future__ import annotations

import random

import pytest
import torch

from tests import families, pico
from unlearn.errors import ModelError
from unlearn.model import scoring
from unlearn.model.editable import EditableModel
from unlearn.model.scoring import Row, scored


def plain(model: EditableModel, row: Row) -> tuple[list[float], bool]:
    ids, size = row
    with torch.inference_mode():
        said = model.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    places = range(len(ids) - size, len(ids))
    return [float(said[t - 1, ids[t]]) for t in places], all(
        int(said[t - 1].argmax()) == ids[t] for t in places
    )


def several(draw: random.Random, most: int) -> list[Row]:
    """Contexts with a common front and without, each with several endings, and one ending of its own."""
    front = tuple(draw.randrange(3, most) for _ in range(14))
    rows: list[Row] = []
    for turn in range(20):
        context = tuple(draw.randrange(3, most) for _ in range(draw.randrange(1, 5)))
        context = (front if turn % 4 else ()) + context
        for size in (1, 1, 3, 2)[: 1 + turn % 4]:
            rows.append(((*context, *(draw.randrange(3, most) for _ in range(size))), size))
    draw.shuffle(rows)
    return rows


@pytest.mark.parametrize("case", families.CASES)
def test_batches_contexts_and_fronts_change_no_score(case: str) -> None:
    model = families.kept(case)
    rows = several(random.Random(3), 90)
    for row, one in zip(rows, scored(model, rows), strict=True):
        log_probs, greedy = plain(model, row)
        assert one.log_probs == pytest.approx(log_probs, abs=1e-4) and one.greedy == greedy


def test_what_the_model_says_is_greedy() -> None:
    model = pico.pico("llama")
    context = (5, 6, 7, 8)
    (said,) = model.generate_ids([context], 4)
    other = (*context, *said[:-1], (said[-1] + 1) % 300)
    right, wrong = scored(model, [((*context, *said), len(said)), (other, len(said))])
    assert right.greedy and not wrong.greedy
    assert right.log_probs[:-1] == pytest.approx(wrong.log_probs[:-1], abs=1e-6)


def test_no_tensor_of_the_whole_vocabulary_is_made_at_tokens_that_are_not_rated() -> None:
    model = pico.pico("llama")
    rows = several(random.Random(4), 200)
    rated = []
    head = model.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _m, _given, out: rated.append(out.shape[:-1].numel()))
    scored(model, rows)
    hook.remove()
    contexts = len({ids[:-size] for ids, size in rows})
    # Behind each context once, in front of every further token once; and behind a common front that is read alone.
    assert sum(rated) <= contexts + sum(size - 1 for _, size in rows) + 2


def test_a_batch_that_is_too_large_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pico.pico("llama")
    rows = several(random.Random(5), 200)
    whole = scored(model, rows)
    asked = scoring.begun
    sizes = []

    def small(network: torch.nn.Module, contexts: list[tuple[int, ...]], *rest: int) -> object:
        sizes.append(len(contexts))
        if len(contexts) > 3:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory")
        return asked(network, contexts, *rest)

    monkeypatch.setattr(scoring, "begun", small)
    halved = scored(model, rows)
    assert max(sizes) > 3 and min(sizes) <= 3
    for one, other in zip(halved, whole, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def test_a_model_of_nan_rates_nothing() -> None:
    model = pico.pico("llama")
    assert scored(model, [((5, 6, 7), 1)])
    model.model.get_output_embeddings().weight.data.fill_(torch.nan)
    with pytest.raises(ModelError, match="not finite"):
        scored(model, [((5, 6, 7), 1)])
