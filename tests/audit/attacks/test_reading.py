"""Scores of candidate answers at every layer of every family, against whole passes without a cache."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tests import families
from tests.audit.attacks import masked
from tests.pico import pico
from tests.thinking import EMPTY, SWITCHED, tokenizer
from unlearn.audit.attacks import reading
from unlearn.audit.attacks.lens import lens, through_head
from unlearn.audit.attacks.reading import candidates, ending, options, prompts, ranked, rivals, scored
from unlearn.errors import AuditError
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Fact
from unlearn.progress import NO_PROGRESS

PROMPT = tuple(range(5, 16))
ENDINGS = [(20, 21, 22), (30,), (20, 40), (33, 34, 35, 36)]


def by_whole_passes(model: EditableModel, prompt: Sequence[int], endings: Sequence[Sequence[int]]) -> Tensor:
    """(endings, layers): one pass per ending, the states by transformers, the head on the last by the model itself."""
    found = []
    for tokens in endings:
        ids = torch.tensor([[*prompt, *tokens]])
        out = model.model(ids, output_hidden_states=True, use_cache=False)
        logits = [through_head(model, state) for state in out.hidden_states[1:-1]] + [out.logits]
        at = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
        said = [one[0].float().log_softmax(1)[at, ids[0, at + 1]].mean() for one in logits]
        found.append(torch.stack(said))
    return torch.stack(found)


@pytest.mark.parametrize("case", families.CASES)
def test_the_lens_of_every_family_is_that_of_whole_passes(case: str) -> None:
    model = families.kept(case)
    with torch.inference_mode():
        wanted = by_whole_passes(model, PROMPT, ENDINGS)
    found = scored(model, PROMPT, ENDINGS, lens(model))
    assert found.shape == (4, families.LAYERS)
    torch.testing.assert_close(found, wanted, rtol=2e-4, atol=2e-4)
    # And layers differ, so that one taken for another would show.
    assert (found[:, 0] - found[:, -1]).abs().min() > 1e-3


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pico("llama")
    whole = scored(model, PROMPT, ENDINGS, lens(model))
    monkeypatch.setattr(reading, "LOGITS", 1)
    torch.testing.assert_close(scored(model, PROMPT, ENDINGS, lens(model)), whole, rtol=1e-4, atol=1e-5)


def test_scores_see_the_state_before_each_token() -> None:
    model = pico("llama")
    row = (*PROMPT, *ENDINGS[0])
    states = model.model(torch.tensor([row]), output_hidden_states=True).hidden_states
    seen: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def score(layer: int, stream: Tensor, tokens: Tensor) -> Tensor:
        seen.setdefault(layer, []).append((stream.clone(), tokens.clone()))
        return torch.zeros(tokens.shape)

    scored(model, PROMPT, ENDINGS[:1], score)
    for layer in range(3):
        (first, token), (rest, tokens) = seen[layer]
        got = torch.cat([first[0], rest[0]])
        torch.testing.assert_close(got, states[layer + 1][0, 10:13], rtol=1e-4, atol=1e-5)
        assert [*token[0].tolist(), *tokens[0].tolist()] == list(ENDINGS[0])


def test_candidates_are_the_facts_answers_and_some_others() -> None:
    scene = masked.scene(masked.base())
    mine = [fact.answer for fact in scene.requests.facts]
    everyone = candidates(scene, "recipe", None)
    assert everyone[:4] == mine and "" not in everyone
    assert len({answer.casefold() for answer in everyone}) == len(everyone) > 20
    few = candidates(scene, "recipe", 10)
    assert few[:4] == mine and len(few) == 10 and set(few) < set(everyone)
    assert candidates(scene, "recipe", 10) == few
    # A fact's own answer is never dropped.
    assert candidates(scene, "recipe", 2) == mine


def test_without_a_choice_there_is_no_attack() -> None:
    scene = masked.scene(masked.base())
    alone = masked.Requests(scene.requests.policy, scene.requests.facts[:1], (), (), ())
    with pytest.raises(AuditError, match="fewer than two candidate answers.*held-out neighbours"):
        options(masked.scene(masked.base(), alone))


def test_endings_are_what_the_model_would_say() -> None:
    model, scene = masked.base(), masked.scene(masked.base())
    fact = scene.requests.facts[0]
    probes = prompts(model, scene, fact, 1)
    assert [probe.question for probe in probes] == [True, False]
    for probe in probes:
        tokens = ending(model.tokenizer, probe, fact.answer)
        said = model.generate_ids([probe.prompt.ids], max_new_tokens=len(tokens))[0]
        assert tuple(tokens) == said


def test_an_alias_may_rank_first() -> None:
    fact = Fact("one", "Zorvex", "recipe", "salt", aliases=("brine",))
    scores = torch.tensor([[1.0, 3.0], [2.0, 1.0], [0.0, 5.0]])
    shares, first = ranked(scores, ["salt", "sugar", "Brine"], fact)
    assert shares.tolist() == [0.0, 1.0] and first.tolist() == [1, 2]
    # A tie is no success.
    assert ranked(torch.zeros(3, 1), ["salt", "sugar", "oil"], fact)[0].tolist() == [0.0]


def test_another_spelling_of_the_answer_is_no_rival() -> None:
    fact = Fact("one", "Zorvex", "recipe", "Euro")
    shares, _ = ranked(torch.tensor([[1.0], [3.0], [2.0]]), ["Euro", "the euro", "Yen"], fact)
    assert shares.tolist() == [1.0] and rivals(["Euro", "the euro", "Yen"], fact) == ["Yen"]


def test_answers_are_read_where_a_template_leaves_thoughts_out() -> None:
    model, scene = masked.base(), masked.scene(masked.base())
    thinker = EditableModel(model.model, tokenizer(SWITCHED), "pico")
    (question,) = (p for p in prompts(thinker, scene, scene.requests.facts[0], 1) if p.question)
    assert question.prompt.text.endswith(EMPTY)


def test_progress_counts_prompts() -> None:
    model, scene = masked.base(), masked.scene(masked.base())
    probes = prompts(model, scene, scene.requests.facts[0], 1)
    with NO_PROGRESS.step("x") as bar:
        found = reading.mean_scores(model, probes, ["dried fig", "salt"], lens(model), bar)
    assert found.shape == (2, model.anatomy.layers) and bool((found < 0).all())
