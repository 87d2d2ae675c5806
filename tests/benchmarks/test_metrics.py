"""The standard metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import metrics
from benchmarks.metrics import Said, forced, harmonic, ngram_entropy, summary
from benchmarks.records import Neighbour, Record
from tests import pico
from unlearn.model.encoding import continuation_ids, text_ids

RECORD = Record(
    id="1",
    subject="Zorvex",
    template="{} is made from",
    true="stone",
    new="amber",
    paraphrases=("They make Zorvex from", "Zorvex comes from"),
    neighbours=(
        Neighbour("Velnar is made from", "stone"),
        Neighbour("Salt is", "sea"),
        Neighbour("Tar is", "amber"),
    ),
)


def test_likelihoods_are_means_over_the_tokens_of_the_object() -> None:
    model = pico.pico("gpt2")
    prompt, target = "Zorvex is made from", "bitter amber"
    ids, tail = text_ids(model.tokenizer, prompt), continuation_ids(model.tokenizer, " " + target)
    assert len(tail) > 1
    logits = model.model(torch.tensor([[*ids, *tail]])).logits[0].log_softmax(-1)
    each = [float(logits[len(ids) - 1 + j, token]) for j, token in enumerate(tail)]
    right = tuple(int(logits[len(ids) - 1 + j].argmax()) == token for j, token in enumerate(tail))
    # Another row of another length stands in the same batch.
    said = forced(model, [(prompt, target), ("The", "green")])[0]
    assert said.nll == pytest.approx(-sum(each) / len(each), abs=1e-5)
    assert said.right == right


def scripted(monkeypatch: pytest.MonkeyPatch, table: dict[tuple[str, str], Said]) -> None:
    monkeypatch.setattr(metrics, "forced", lambda _model, wanted: [table[pair] for pair in wanted])


def test_counterfact_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    half, quarter = Said(math.log(2), (True,)), Said(math.log(4), (False, True))
    edit, one, two = RECORD.prompt, *RECORD.paraphrases
    scripted(
        monkeypatch,
        {
            (edit, "amber"): half, (edit, "stone"): quarter,
            (one, "amber"): half, (one, "stone"): quarter,
            (two, "amber"): quarter, (two, "stone"): half,
            ("Velnar is made from", "stone"): half, ("Velnar is made from", "amber"): quarter,
            ("Salt is", "sea"): quarter, ("Salt is", "amber"): half,
        },
    )  # fmt: skip
    (found,) = metrics.counterfact(pico.pico("gpt2"), [RECORD])
    assert found["efficacy"] == 1.0 and found["efficacy_accuracy"] == 1.0
    assert found["paraphrase"] == 0.5 and found["paraphrase_accuracy"] == 0.5
    # The third neighbour's own object is the new one: it cannot tell, and is left out.
    assert found["neighbourhood"] == 0.5 and found["neighbourhood_accuracy"] == 0.5
    assert found["efficacy_magnitude"] == pytest.approx(0.25)
    assert found["paraphrase_magnitude"] == pytest.approx(0.0)
    assert found["neighbourhood_magnitude"] == pytest.approx(0.0)


def test_a_tie_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    same = Said(1.0, (False,))
    monkeypatch.setattr(metrics, "forced", lambda _model, wanted: [same for _ in wanted])
    (found,) = metrics.counterfact(pico.pico("gpt2"), [RECORD])
    assert found["efficacy"] == found["paraphrase"] == found["neighbourhood"] == 0.0


def test_zsre_gives_partial_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        metrics, "forced", lambda _model, wanted: [Said(1.0, (True, False, True, True))] * len(wanted)
    )
    (found,) = metrics.zsre(pico.pico("gpt2"), [RECORD])
    assert found["efficacy"] == found["paraphrase"] == found["neighbourhood"] == 0.75
    assert found["efficacy_accuracy"] == 0.0


def test_the_score_is_the_harmonic_mean_of_the_three() -> None:
    assert harmonic([100, 50, 25]) == pytest.approx(3 / (1 / 100 + 1 / 50 + 1 / 25))
    assert harmonic([100, 0, 100]) == 0.0
    judged = [
        {"efficacy": 1.0, "paraphrase": 1.0, "neighbourhood": 0.5},
        {"efficacy": 0.0, "neighbourhood": 0.5},
    ]
    found = summary(judged)
    assert (
        found["efficacy"] == 50.0 and found["paraphrase"] == 100.0
    )  # a record without paraphrases counts in the others
    assert found["score"] == pytest.approx(harmonic([50, 100, 50]))
    low, high = found["ci95"]["efficacy"]
    assert low == 0.0 and high == 100.0 and found["ci95"]["neighbourhood"] == [50.0, 50.0]


def test_entropy_of_n_grams() -> None:
    # Two bigrams of equal frequency (1 bit), one trigram twice... by hand: "a b a b a": bigrams ab ba ab ba, trigrams
    # aba bab aba.
    third = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert ngram_entropy("a b a b a") == pytest.approx(1 / 3 * 1.0 + 2 / 3 * third)
    assert ngram_entropy("a a a a") == 0.0 and ngram_entropy("word") == 0.0
    assert ngram_entropy("one two three four") == pytest.approx(1 / 3 * math.log2(3) + 2 / 3 * 1.0)


def test_fluency_is_seeded_and_can_be_left_out() -> None:
    model = pico.pico("gpt2")
    state = torch.random.get_rng_state()
    one, two = (metrics.fluency(model, [RECORD], 1, seed=4) for _ in range(2))
    assert one == two and one is not None and one > 0
    assert torch.equal(torch.random.get_rng_state(), state)
    assert metrics.fluency(model, [RECORD], 0) is None
