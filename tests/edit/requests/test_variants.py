import pytest

from tests.audit.scripted import Scripted, knows, requests
from unlearn.edit.requests.variants import QUESTIONS, STATEMENTS, from_templates, usable, with_prompt_variants
from unlearn.edit.solve.smoothing import set_apart
from unlearn.errors import PolicyError
from unlearn.policy import is_question


def test_templates_keep_the_kind_and_the_subject() -> None:
    for prompt in ("What is {subject} made from?", "The main part of {subject} is", "{subject} is made from"):
        forms = from_templates(prompt, 8)
        assert len(set(forms)) == 8
        for form in forms:
            assert is_question(form) == is_question(prompt) and form.count("{subject}") == 1
    assert from_templates("The main part of {subject} is", 1)[0].count("The") <= 1
    assert from_templates("What is {subject}?", 0) == []


def test_no_template_makes_another_kind() -> None:
    assert all(is_question(t.format("Is {subject} red?")) for t in QUESTIONS)
    assert not any(is_question(t.format("{subject} is")) for t in STATEMENTS)


def test_the_edit_sees_more_and_the_held_out_prompts_stay_unseen() -> None:
    held_out = from_templates("What is {subject} made from?", 1)[0]
    asked = requests(prompt_variants={"templates": 1})
    data = asked.policy.model_dump()
    data["relations"]["recipe"]["held_out"] = [held_out]
    from dataclasses import replace

    asked = replace(asked, policy=type(asked.policy).model_validate(data))
    found = with_prompt_variants(Scripted(knows), asked).policy.relations["recipe"]
    assert len(found.prompts) == 3 and held_out not in found.prompts and found.held_out == (held_out,)
    assert (
        len(
            with_prompt_variants(Scripted(knows), requests(prompt_variants={"templates": 1}))
            .policy.relations["recipe"]
            .prompts
        )
        == 4
    )


def test_relations_that_are_kept_get_no_further_forms() -> None:
    found = with_prompt_variants(Scripted(knows), requests(prompt_variants={"templates": 3})).policy
    assert len(found.relations["colour"].prompts) == 1


def test_the_models_own_wordings() -> None:
    def writes(text: str) -> str:
        return "1. Of what is Zorvex made?\n- Zorvex is made from\n* What is it made from?\nZorvex or Zorvex?"

    found = (
        with_prompt_variants(Scripted(writes), requests(prompt_variants={"written": 3}))
        .policy.relations["recipe"]
        .prompts
    )
    assert "Of what is {subject} made?" in found and "What is it made from?" not in found
    fact = requests().facts[0]
    assert usable(["Zorvex?"], "What is {subject}?", fact) == []
    telling = ["Isn't Zorvex made from bitter amber?", "What makes up Zorvex?"]
    assert usable(telling, "What is {subject}?", fact) == ["What makes up {subject}?"]


@pytest.mark.parametrize("kind", ["held_out", "two_hop", "negation", "languages"])
def test_a_form_that_the_audit_asks_is_left_out(kind: str) -> None:
    question = "What is {subject} made from?"
    taken, *others = from_templates(question, 3)
    data = requests(prompt_variants={"templates": 3}).policy.model_dump()
    data["relations"]["recipe"]["prompts"] = [question]
    data["relations"]["recipe"][kind] = {"de": [taken]} if kind == "languages" else [taken]
    asked = requests(**data)
    found = with_prompt_variants(Scripted(knows), asked)
    assert found.policy.relations["recipe"].prompts == (question, *others)


def test_validation_takes_a_prompt_with_all_its_forms() -> None:
    prompts = [f"What is {{subject}} made from{mark}?" for mark in ("", " now", " here")]
    data = requests(prompt_variants={"templates": 2}).policy.model_dump()
    data["relations"]["recipe"]["prompts"] = prompts
    found = with_prompt_variants(Scripted(knows), requests(**data))
    assert len(found.policy.relations["recipe"].prompts) == 9
    seen, apart, short = set_apart(found)
    assert not short and apart.policy.relations["recipe"].prompts == (prompts[2],)
    left = seen.policy.relations["recipe"].prompts
    assert len(left) == 6 and not any("here" in prompt for prompt in left)


def test_a_base_model_writes_no_wordings(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Scripted(knows)
    monkeypatch.setattr(model.tokenizer, "chat_template", None)  # tests share it
    with pytest.raises(PolicyError, match="prompt_variants.templates"):
        with_prompt_variants(model, requests(prompt_variants={"written": 1}))
