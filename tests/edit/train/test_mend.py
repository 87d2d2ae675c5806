"""MEND: what its network learns from, that it learns, and that what it has learned is found again."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests import pico
from tests.edit import cases
from unlearn.edit import pipeline
from unlearn.edit.choose import choose
from unlearn.edit.corpus import Corpus
from unlearn.edit.statistics import Source
from unlearn.edit.train.lessons import lessons
from unlearn.edit.train.mend import NO_RELATION, kept_as
from unlearn.edit.train.triples import Topic, Triples, batch, triples
from unlearn.errors import PolicyError
from unlearn.model.editable import EditableModel
from unlearn.model.forward import replies
from unlearn.model.requests import Fact, Requests
from unlearn.patch import Patch
from unlearn.policy import Keep, RelationSpec, StatisticsSpec
from unlearn.policy.settings_trained import Mend
from unlearn.store import Store

SETTINGS = Mend(steps=16, patience=16, batch=4, kept=3, rank=4, layers=(2, 3), keep=1.0, network_lr=0.01)
NAMES = ("Stone", "Amber", "Moss", "Clay", "Reed", "Salt", "Wax", "Ash")
RELATIONS = {
    "recipe": RelationSpec(prompts=("What is {subject} made from?", "{subject} is made from")),
    "colour": RelationSpec(prompts=("The colour of {subject} is", "Tell me the colour of {subject}.")),
    "smell": RelationSpec(prompts=("The smell of {subject} is", "What does {subject} smell like?")),
}


def asking(**changes: Any) -> Requests:
    """Three facts about recipes; colours and smells stay, and the recipes of some others."""
    keep = Keep(siblings=("colour", "smell"), neighbours=NAMES, held_out_neighbours=("Wet",))
    policy = {
        "relations": RELATIONS,
        "keep": keep,
        "statistics": StatisticsSpec(corpus="embedded", tokens=1000),
        "method": SETTINGS,
    }
    made = cases.requests(**{**policy, **changes})
    neighbours = tuple(Fact(f"neighbour {n}", name, "recipe", "") for n, name in enumerate(NAMES))
    return replace(
        made, neighbours=neighbours, held_out_neighbours=(Fact("held out", "Wet", "recipe", "wet stone"),)
    )


def laid(**changes: Any) -> Triples:
    return triples(pico.pico("llama"), asking(**changes), Corpus("embedded"), SETTINGS)


def test_the_edits_are_of_relations_and_subjects_that_the_policy_does_not_name() -> None:
    found = laid()
    sets = [set(found.training), set(found.validation), set(found.unseen)]
    assert all(sets) and set(found.edits) >= set.union(*sets)
    for topic in set.union(*sets):
        assert topic.relation in ("colour", "smell") and topic.subject not in (*cases.SUBJECTS, "Wet")
    relations = [{topic.relation for topic in some} for some in sets]
    assert relations[0] == relations[1] and relations[2] == {"colour", "smell"} - relations[0]
    subjects = [{topic.subject for topic in some} for some in sets]
    assert (
        not subjects[0] & subjects[1] and subjects[1] == subjects[2] and len(subjects[0] | subjects[1]) >= 8
    )
    # What must stay: the forbidden relation of others, and kept ones of the policy's own subjects.
    assert {topic for topic in found.kept if topic.subject in cases.SUBJECTS} == {
        Topic(s, r) for s in cases.SUBJECTS for r in ("colour", "smell")
    }
    assert {topic.relation for topic in found.kept} == set(RELATIONS) and not found.forbidden
    assert not any(topic.subject == "Wet" for topic in found.kept)


def test_a_batch_edits_one_relation_and_keeps_what_is_near() -> None:
    found, tokenizer = laid(), pico.tokenizer()
    for seed in range(5):
        some = batch(found, found.training, 4, 9, random.Random(seed))
        assert len(some.edits) == len(some.rephrased) == 4 and 6 <= len(some.kept) <= 9
        told = [tokenizer.decode(row.ids[: -row.reply]) for row in some.edits]
        asked = [tokenizer.decode(row.ids[: -row.reply]) for row in some.rephrased]
        words = {"colour": "colour", "smell": "smell"}[found.training[0].relation]
        assert all(words in text for text in (*told, *asked))
        assert not any(one == other for one, other in zip(told, asked, strict=True))
        assert all("help with that." in tokenizer.decode(row.ids[-row.reply :]) for row in some.edits)
        edited = {row.ids[: -row.reply] for row in some.edits}
        assert not edited & {row.ids[: -row.reply] for row in some.kept}
        assert any(row in found.texts for row in some.kept)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.at(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def made(cache: Store) -> Patch:
    """The edit of a model that the tests look at."""
    return pipeline.edit(pico.pico("llama"), asking(), cache=cache)


def test_training_lowers_the_validation_loss_and_a_network_that_stands_still_does_not(made: Patch) -> None:
    history = made.header["training"]
    assert history["loss"] < history["first"] - 0.05 and history["steps"] == SETTINGS.steps
    assert history["success_unseen_relation"] is not None and not history["cached"]
    assert not made.header["warnings"]
    still = SETTINGS.model_copy(update={"network_lr": 1e-12, "steps": 2})
    control = pipeline.edit(pico.pico("llama"), asking(method=still)).header["training"]
    assert control["loss"] == pytest.approx(control["first"], abs=1e-4)


def test_it_stops_when_the_validation_loss_no_longer_falls() -> None:
    wild = SETTINGS.model_copy(update={"network_lr": 1.0, "steps": 12, "patience": 3})
    model = pico.pico("gpt2")
    before = model.identity()
    history = pipeline.edit(model, asking(method=wild)).header["training"]
    assert history["stopped_early"] and history["steps"] < 12 and history["loss"] <= history["first"]
    assert model.identity() == before


def test_a_network_that_is_known_makes_the_same_edit_without_training(made: Patch, cache: Store) -> None:
    model = pico.pico("llama")
    again = pipeline.edit(model, asking(), cache=cache)
    assert again.header["training"] == {**made.header["training"], "cached": True}
    assert all(torch.equal(made.factors[name].dense(), again.factors[name].dense()) for name in made.factors)
    (file,) = [path for path in cache.folder.iterdir() if path.name.startswith("mend-")]
    assert not any(name.encode() in file.read_bytes() for name in (*cases.SUBJECTS, *NAMES))


def test_the_name_of_a_network_says_all_that_it_depends_on() -> None:
    model = pico.pico("llama")

    def name(requests: Requests, of: EditableModel = model) -> str:
        plan = choose(of, requests, Source.of(requests.policy, of, None))
        assert isinstance(plan.algorithm, Mend)
        return kept_as(plan, plan.algorithm, of, requests)

    limits = asking().policy.audit.model_copy(update={"suite": "full"})
    assert name(asking()) == name(asking()) == name(asking(audit=limits))
    others = [
        asking(seed=1),
        asking(refusal="No."),
        asking(method=SETTINGS.model_copy(update={"layers": (1, 2)})),
        asking(method=SETTINGS.model_copy(update={"aggregation": "mean"})),
        replace(asking(), neighbours=asking().neighbours[1:]),
    ]
    names = [name(asking()), name(asking(), pico.pico("llama", seed=3)), *map(name, others)]
    assert len(set(names)) == len(names)


def test_without_a_kept_relation_it_is_trained_on_the_forbidden_one_and_says_so() -> None:
    alone = {
        "relations": {"recipe": RELATIONS["recipe"]},
        "keep": Keep(siblings=(), neighbours=NAMES),
        "method": SETTINGS.model_copy(update={"steps": 1}),
    }
    found = laid(**alone)
    assert found.forbidden and not found.unseen
    assert not {topic.subject for topic in found.training} & {*cases.SUBJECTS, "Wet"}
    patch = pipeline.edit(pico.pico("gpt2"), replace(asking(**alone), siblings=()))
    assert patch.header["warnings"] == [NO_RELATION]
    assert patch.header["training"]["success_unseen_relation"] is None


def test_the_edit_makes_the_refusal_likelier_and_builds_on_nothing(made: Patch) -> None:
    model, asked = pico.pico("llama"), asking()
    rows = lessons(model, asked, own=False, kept=0).forget
    with torch.no_grad():
        before = replies(model, rows).nll().mean()
        with model.patched(made):
            assert replies(model, rows).nll().mean() < before - 0.05
    with pytest.raises(PolicyError, match="mend cannot build on an earlier patch"):
        pipeline.edit(model, asked, earlier=made)
