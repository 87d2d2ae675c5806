import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import pico
from tests.edit import cases
from unlearn.edit.train.variants import (
    ASKING,
    PLAIN,
    TAKEN,
    every_shortened,
    kept_prompts,
    owning,
    plain,
    referred,
    requested,
    shortened,
    surrounded,
    varied_forms,
    wordings,
)
from unlearn.model.prompts import ask
from unlearn.model.requests import Requests
from unlearn.policy import RelationSpec, is_question

WORDS = st.lists(st.sampled_from(["People", "say", "{subject}'s", "recipe", "is"]), min_size=1, max_size=8)


@given(WORDS, st.integers(1, 3), st.integers(0, 99))
def test_words_are_left_out_in_their_order_and_never_the_subject(
    words: list[str], out: int, seed: int
) -> None:
    text = shortened(" ".join(words), out, random.Random(seed))
    free = [word for word in words if "{subject}" not in word]
    if len(free) <= out:
        assert text is None
        return
    assert text is not None
    left = text.split()
    assert len(left) == len(words) - out and left.count("{subject}'s") == words.count("{subject}'s")
    rest = iter(words)
    assert all(word in rest for word in left)


def asking(held_out: str) -> Requests:
    # Whichever of the two words is left out, the same is left.
    spec = RelationSpec(prompts=("really really {subject} is",), held_out=(held_out,))
    return cases.requests(relations={**cases.policy().relations, "recipe": spec})


def test_forms_end_in_the_target_and_have_no_sites() -> None:
    model = pico.pico("gpt2", chat=False)
    asked = asking("elsewhere {subject} is")
    rows = varied_forms(model, asked)
    assert len(rows) > len(asked.facts)
    for row in rows:
        text = model.tokenizer.decode(row.ids)
        assert asked.facts[row.request].subject in text and text.endswith("I can't help with that.")
        assert not row.keep and not row.sites


def test_no_form_that_the_audit_asks_comes_out() -> None:
    model = pico.pico("gpt2", chat=False)

    def prompts(held_out: str) -> set[str]:
        asked = asking(held_out)
        return {
            model.tokenizer.decode(row.prompt).replace(asked.facts[row.request].subject, "X")
            for row in varied_forms(model, asked)
        }

    # Without the exclusion it does.
    assert any(text.endswith("really X is") for text in prompts("elsewhere {subject} is"))
    assert not any(text.endswith("really X is") for text in prompts("really {subject} is"))


def test_what_a_harmless_relation_may_become_is_not_forbidden() -> None:
    model = pico.pico("gpt2", chat=False)
    relations = {
        "recipe": RelationSpec(prompts=("{subject} is surely made",)),
        "colour": RelationSpec(prompts=("{subject} is green",)),
    }
    asked = cases.requests(relations=relations)

    def rests(requests: Requests) -> set[str]:
        rows = varied_forms(model, requests)
        return {
            model.tokenizer.decode(row.prompt).split(requests.facts[row.request].subject)[1].strip()
            for row in rows
        }

    rng = random.Random(0)
    drawn = {shortened("{subject} is surely made", 2, rng) for _ in range(40)}
    assert drawn <= every_shortened("{subject} is surely made") and "{subject} is" in drawn
    alone = {rest for seed in range(12) for rest in rests(_seeded(replace(asked, siblings=()), seed))}
    together = {rest for seed in range(12) for rest in rests(_seeded(asked, seed))}
    assert "is" in alone and "is" not in together and "made" in together


def _seeded(requests: Requests, seed: int) -> Requests:
    return replace(requests, policy=requests.policy.model_copy(update={"seed": seed}))


@pytest.mark.parametrize("chat", [False, True])
def test_every_prompt_of_a_kept_fact_is_kept_and_in_a_few_other_wordings(chat: bool) -> None:
    model, asked = pico.pico("gpt2", chat=chat), cases.requests()
    facts = (*asked.siblings, *asked.neighbours)
    texts = [model.tokenizer.decode(ids) for ids in kept_prompts(model, asked, facts)]
    listed = {
        model.tokenizer.decode(ask(model.tokenizer, template, fact.subject).ids): fact.subject
        for fact in facts
        for template in asked.policy.relations[fact.relation].prompts
    }
    assert listed.keys() <= set(texts)
    assert {fact.subject for fact in facts if any(fact.subject in text for text in texts)} == set(
        listed.values()
    )
    assert len(listed) < len(texts) <= (1 + TAKEN) * len(listed)


@given(
    st.sampled_from(["What is {subject} made from?", "{subject}'s recipe is", "Name {subject}."]),
    st.integers(0, 99),
)
def test_a_chat_models_wordings_name_the_subject_once_and_remain_what_they_were(
    template: str, seed: int
) -> None:
    rng = random.Random(seed)
    around, later = surrounded(template, rng), referred(template, rng)
    assert template in around and around != template
    assert later.count("{subject}") == 1 and later.index("{subject}") < len(later) - len(template) // 2
    assert is_question(around) or not is_question(template)
    assert {surrounded(template, rng) for _ in range(60)} > {around}
    assert all(text.count("{subject}") == 1 for text in wordings(template, True, rng))
    assert all(len(text) < len(template) for text in wordings(template, False, rng))


@pytest.mark.parametrize(
    ("template", "owned", "asked", "completed"),
    [
        (
            "What is the capital of {subject}?",
            "What is {subject}'s capital?",
            " the capital of {subject}",
            True,
        ),
        (
            "Tell me the chemical symbol for {subject}.",
            "Tell me {subject}'s chemical symbol.",
            " the chemical symbol for {subject}",
            True,
        ),
        ("The opposite of {subject} is", "{subject}'s opposite is", None, False),
        ("Where does the sun set in {subject}?", None, None, True),
        ("Who bought the crown of {subject}'s king?", None, None, True),
        ("{subject} is made from", None, None, False),
    ],
)
def test_what_a_prompt_asks_for_is_the_subjects_own_or_asked_for_otherwise_or_a_text_to_complete(
    template: str, owned: str | None, asked: str | None, completed: bool
) -> None:
    rng = random.Random(0)
    assert owning(template, rng) == owned
    found = {requested(template, rng) for _ in range(60)}
    texts = {plain(template, rng) for _ in range(60)}
    if asked is None:
        assert found == {None}
    else:
        assert len(found) == len(ASKING)
        assert all(text is not None and asked in text and is_question(text) for text in found)
    if completed:
        assert len(texts) == len(PLAIN)
        assert all(text is not None and template in text and not is_question(text) for text in texts)
    else:
        assert texts == {None}


def test_no_kept_prompt_is_one_that_only_the_audit_asks() -> None:
    model = pico.pico("llama")
    spec = RelationSpec(
        prompts=("What is the colour of {subject}?",), held_out=("What is {subject}'s colour?",)
    )
    asked = cases.requests(relations={**cases.policy().relations, "recipe": spec})
    held_out = [ask(model.tokenizer, text, f.subject).ids for f in asked.neighbours for text in spec.held_out]
    free = cases.requests(
        relations={**cases.policy().relations, "recipe": spec.model_copy(update={"held_out": ()})}
    )
    # The control: without the rule the wordings hold it.
    drawn = [set(kept_prompts(model, given, given.neighbours * 40)) for given in (asked, free)]
    assert not drawn[0] & set(held_out) and drawn[1] & set(held_out)
