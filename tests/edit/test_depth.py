"""Where the last prompt token tells subjects apart: against keys that are read one by one, and the rule in a table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests import pico
from tests.edit import cases
from unlearn.edit import depth
from unlearn.edit.depth import FEWEST, GIVEN, Placed, deep_enough, placed, told_apart
from unlearn.edit.layers import layers_of
from unlearn.edit.requests.resolve import outline
from unlearn.edit.requests.vocabulary import near_words
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read
from unlearn.model.prompts import ask
from unlearn.policy import EMBEDDED
from unlearn.policy.file import load_policy
from unlearn.policy.settings import AlphaEdit
from unlearn.policy.settings_trained import NullSpaceTuning
from unlearn.shipped import shipped


def test_shares_are_those_of_keys_that_are_read_one_by_one() -> None:
    model, asked = pico.pico("llama"), cases.requests()
    found = told_apart(model, asked)
    shares = []
    relation = asked.facts[0].relation
    assert {fact.relation for fact in asked.facts} == {relation}
    named = list(dict.fromkeys(fact.subject for fact in (*asked.facts, *asked.neighbours)))
    subjects = [*named, *near_words(model, named, (), FEWEST)][:FEWEST]
    assert len(named) < len(subjects)
    for template in asked.policy.relations[relation].prompts:
        prompts = [ask(model.tokenizer, template, subject) for subject in subjects]
        keys = torch.cat([read(model, [p.ids], [[p.last]], [1]).keys[1] for p in prompts], 1).double()
        shares.append(((keys - keys.mean(1, keepdim=True)) ** 2).sum() / (keys**2).sum())
    assert float(found[1]) == pytest.approx(float(torch.stack(shares).mean()), rel=1e-4)
    assert found.shape == (model.anatomy.layers,) and 0 < float(found.min()) < 1


def test_one_subject_is_told_from_words_of_its_kind_if_the_vocabulary_has_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, model = cases.requests(), pico.pico("llama")
    alone = replace(asked, facts=asked.facts[:1], neighbours=())
    assert told_apart(model, alone).all()
    monkeypatch.setattr(depth, "near_words", lambda *_: [])
    assert not told_apart(model, alone).any()


@pytest.mark.parametrize(
    ("apart", "middle", "wanted"),
    [
        # As SmolLM2: nothing until the subject arrives.
        ([0.0, 0.01, 0.03, 0.03, 0.39, 0.29, 0.38, 0.15], (1, 2, 3), (4, 5, 6)),
        # As a shallow model: everywhere.
        ([0.66, 0.82, 0.69, 0.77, 0.82, 0.81], (2, 3, 4), (2, 3, 4)),
        ([0.2, 0.31, 0.5, 0.6], (0, 1), (0, 1)),
        ([0.1, 0.29, 0.5, 0.6], (0, 1), (2, 3)),
        ([0.0] * 4, (1, 2), (1, 2)),
        # The prompt's last token is the subject's, which the first layers know best.
        ([0.75, 0.51, 0.1, 0.1, 0.36, 0.3], (2, 3), (4, 5)),
        ([0.75, 0.51, 0.3, 0.36, 0.36, 0.3], (2, 3), (2, 3)),
        ([0.0] * 2 + [0.5] * 8, (0, 1), (2, 3, 4, 5, 6)),
    ],
)
def test_the_middle_is_written_unless_that_is_too_early(
    apart: list[float], middle: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    assert deep_enough(torch.tensor(apart), middle) == wanted


def test_the_plan_says_where_and_why() -> None:
    policy = load_policy(shipped("policies") / "demo.yaml")
    model = EditableModel.load(EMBEDDED)
    settings = AlphaEdit(look_up="last")
    middle = layers_of(settings, model)
    found = placed(model, settings, lambda: told_apart(model, outline(policy)))
    assert found == Placed(middle, middle, "the middle of the depth", found.apart)
    assert found.apart is not None and found.apart > 0.5
    last = model.anatomy.layers - 1
    late = torch.tensor([0.0] * last + [0.4])
    trained = NullSpaceTuning(look_up="last")
    for method, wanted in ((settings, (last,)), (trained, tuple(range(middle[0], last + 1)))):
        layers, telling, why, apart = placed(model, method, lambda: late)
        assert layers == wanted and telling == (last,) and apart == pytest.approx(0.4)
        assert why.startswith("keys at the last prompt token differ by subject by 0 %")
    early = placed(model, trained, lambda: torch.ones(model.anatomy.layers))
    assert early.layers == early.telling == middle
    given = placed(model, AlphaEdit(look_up="last", layers=(1, 2)), lambda: late)
    assert given == Placed((1, 2), (1, 2), GIVEN)
