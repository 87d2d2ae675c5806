"""The in-context guard: it stands before every prompt that is built in its presence, and changes nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import pico
from tests.edit import cases
from tests.edit.train.cases import asking, made
from tests.saving import save
from unlearn.audit.drift import log_probs
from unlearn.edit import pipeline
from unlearn.edit.guard import instruction
from unlearn.errors import ModelError, PolicyError
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import text_ids
from unlearn.model.guard import guarded, leading_ids, text_of
from unlearn.model.prompts import ask
from unlearn.patch import Patch
from unlearn.policy.settings_trained import Guard

TEXT = "Never say what Zorvex is made from."


def test_a_chat_question_gets_a_system_turn_and_finds_its_subject() -> None:
    model, patch = made("guard", "llama")
    plain = ask(model.tokenizer, "What is {subject} made from?", "Zorvex")
    with model.patched(patch):
        now = ask(model.tokenizer, "What is {subject} made from?", "Zorvex")
        both = ask(model.tokenizer, "What is {subject} made from?", "Zorvex", system="Be brief.")
    assert now.text == plain.text.replace("<|user|>", f"<|system|>{TEXT}<|end|><|user|>")
    assert both.text == now.text.replace(TEXT, f"{TEXT}\n\nBe brief.")
    for prompt in (now, both):
        assert "vex" in model.tokenizer.decode(prompt.ids[prompt.subject_last :][:1]) + "vex"
        assert prompt.ids[-len(plain.ids) + 1 :] == plain.ids[1:]
        assert prompt.last - prompt.subject_last == plain.last - plain.subject_last
    assert ask(model.tokenizer, "What is {subject} made from?", "Zorvex") == plain


@pytest.mark.parametrize("chat", [True, False])
def test_statements_and_base_models_get_leading_text(chat: bool) -> None:
    model = pico.pico("llama", chat=chat)
    templates = ["{subject} is made from"] + ([] if chat else ["What is {subject} made from?"])
    for template in templates:
        plain = ask(model.tokenizer, template, "Zorvex")
        now = ask(guarded(model.tokenizer, TEXT), template, "Zorvex")
        assert now.text == f"{TEXT}\n\n{plain.text}"
        assert now.last - now.subject_last == plain.last - plain.subject_last
        assert now.ids[now.subject_last] == plain.ids[plain.subject_last]


def test_weights_replies_without_it_and_the_tokenizer_stay() -> None:
    model, patch = made("guard", "llama")
    assert not patch.factors and patch.header["system"] == TEXT
    before, tokenizer, template = model.identity(), model.tokenizer, model.tokenizer.chat_template
    prompt = ask(model.tokenizer, "What is {subject} made from?", "Zorvex")
    reply = model.generate([prompt], 6)
    with model.patched(patch):
        assert model.identity() == before and text_of(model.tokenizer) == TEXT
        assert model.generate([prompt], 6) == reply  # built outside, it has no guard
        inside = ask(model.tokenizer, "What is {subject} made from?", "Zorvex")
    assert model.tokenizer is tokenizer and tokenizer.chat_template == template and text_of(tokenizer) is None
    assert inside != prompt
    with pytest.raises(RuntimeError), model.patched(patch):
        raise RuntimeError
    assert model.tokenizer is tokenizer
    with pytest.raises(ModelError, match="made for another model"), pico.pico("llama", seed=9).patched(patch):
        pass


def test_no_op_changes_nothing() -> None:
    model, patch = made("none", "llama")
    before, tokenizer = model.identity(), model.tokenizer
    with model.patched(patch):
        assert model.identity() == before and model.tokenizer is tokenizer
    assert not patch.factors and "system" not in patch.header


def test_templates_without_a_system_turn_get_it_in_the_first_turn_and_odd_text_survives() -> None:
    odd = 'Say "no" to {{ 1 + 1 }} and %} é 🙂\nnever \\ more.'
    tokenizer = pico.tokenizer()
    assert odd in ask(guarded(tokenizer, odd), "What is {subject}?", "Zorvex").text
    strict = guarded(tokenizer, "x")  # a copy to change
    strict.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    )
    prompt = ask(guarded(strict, odd), "What is {subject}?", "Zorvex")
    assert prompt.text == f"<|user|>{odd}\n\nWhat is Zorvex?<|end|>"
    strict.chat_template = "{{ bos_token }}nothing is heard"
    with pytest.raises(ModelError, match="drops a system prompt"):
        guarded(strict, odd)


def test_divergence_on_text_is_measured_behind_the_guard() -> None:
    model, patch = made("guard", "llama")
    tokenizer = model.tokenizer
    texts = ["The colour of Velnar is green.", ask(tokenizer, "What is {subject}?", "Velnar").text]
    rows = [tuple(text_ids(tokenizer, text)) for text in texts]
    plain = [found.clone() for found in log_probs(model, rows)]
    with model.patched(patch):
        now = [found.clone() for found in log_probs(model, rows)]
        turn = tokenizer.decode(leading_ids(model.tokenizer, rows[1]))
        assert turn == f"<|system|>{TEXT}<|end|>"
        assert tokenizer.decode(leading_ids(model.tokenizer, rows[0])) == f"{TEXT}\n\n"
        whole = torch.tensor([[rows[0][0], *leading_ids(model.tokenizer, rows[0]), *rows[0][1:]]])
        by_hand = model.model(whole).logits[0, -len(rows[0]) : -1].log_softmax(-1)
    torch.testing.assert_close(now[0], by_hand)
    assert [p.shape for p in plain] == [n.shape for n in now]
    assert all((p - n).abs().max() > 0.1 for p, n in zip(plain, now, strict=True))
    assert leading_ids(tokenizer, rows[0]) == ()
    assert all(torch.equal(p, q) for p, q in zip(plain, log_probs(model, rows), strict=True))


def test_the_text_is_the_policy_and_must_fit_the_context() -> None:
    policy = cases.policy()
    text = instruction(policy)
    assert all(word in text for word in (*cases.SUBJECTS, policy.refusal, "What is ... made from?"))
    assert "{subject}" not in text and "colour" not in text and "amber" not in text
    with pytest.raises(PolicyError, match="this model's context of 128"):
        pipeline.edit(pico.pico("llama"), cases.requests(method=Guard()))
    with pytest.raises(ValueError, match="text"):
        Guard(text="  ")


def test_a_saved_model_keeps_the_guard_in_its_chat_template(tmp_path: Path) -> None:
    model, patch = made("guard", "llama")
    patch.save(tmp_path / "patch.safetensors")
    save(model, tmp_path / "model", Patch.load(tmp_path / "patch.safetensors"))
    saved = EditableModel.load(str(tmp_path / "model"), device="cpu")
    assert saved.identity() == model.identity()
    asked = ask(saved.tokenizer, "What is {subject} made from?", "Zorvex")
    assert TEXT in asked.text and asking("guard").policy.method.text == TEXT
