import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests import pico
from tests.edit import cases
from unlearn.edit.train.shortened import every_shortened, shortened, shortened_forms, shortened_kept
from unlearn.model.requests import Requests
from unlearn.policy import RelationSpec

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
    rows = shortened_forms(model, asked)
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
            for row in shortened_forms(model, asked)
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
        rows = shortened_forms(model, requests)
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


def test_every_kept_fact_is_kept_in_one_shorter_form() -> None:
    model, asked = pico.pico("gpt2", chat=False), cases.requests()
    texts = [model.tokenizer.decode(ids) for ids in shortened_kept(model, asked)]
    names = [fact.subject for fact in (*asked.siblings, *asked.neighbours)]
    assert len(texts) == len(names) and all(name in text for name, text in zip(names, texts, strict=True))
