import pytest

from tests.audit.scripted import Scripted, knows, requests
from unlearn.edit.rephrase import QUESTIONS, STATEMENTS, from_templates, usable, with_more_forms
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
    asked = requests(more_forms={"templates": 1})
    data = asked.policy.model_dump()
    data["relations"]["recipe"]["held_out"] = [held_out]
    from dataclasses import replace

    asked = replace(asked, policy=type(asked.policy).model_validate(data))
    found = with_more_forms(Scripted(knows), asked).policy.relations["recipe"]
    assert len(found.prompts) == 3 and held_out not in found.prompts and found.held_out == (held_out,)
    assert (
        len(
            with_more_forms(Scripted(knows), requests(more_forms={"templates": 1}))
            .policy.relations["recipe"]
            .prompts
        )
        == 4
    )


def test_relations_that_are_kept_get_no_further_forms() -> None:
    found = with_more_forms(Scripted(knows), requests(more_forms={"templates": 3})).policy
    assert len(found.relations["colour"].prompts) == 1


def test_the_models_own_wordings() -> None:
    def writes(text: str) -> str:
        return "1. Of what is Zorvex made?\n- Zorvex is made from\n* What is it made from?\nZorvex or Zorvex?"

    found = (
        with_more_forms(Scripted(writes), requests(more_forms={"written": 3}))
        .policy.relations["recipe"]
        .prompts
    )
    assert "Of what is {subject} made?" in found and "What is it made from?" not in found
    assert usable(["Zorvex?"], "What is {subject}?", "Zorvex") == []


def test_a_base_model_writes_no_wordings(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Scripted(knows)
    monkeypatch.setattr(model.tokenizer, "chat_template", None)  # tests share it
    with pytest.raises(PolicyError, match="more_forms.templates"):
        with_more_forms(model, requests(more_forms={"written": 1}))
