"""Chat templates of every odd kind end in one sentence, or are asked as they stand; and in time."""

from __future__ import annotations

import copy
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests import chats, pico
from tests.files import corpus_file, model_folder, pico_policy, run
from unlearn.errors import ModelError
from unlearn.model import templates
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import ask, begun, closing_ids, reply_ids
from unlearn.model.templates import checked, rendered

SECRET = "Zorvex"
ROUNDS = "{% for i in range(99999) %}{% for j in range(99999) %}{{ '' }}{% endfor %}{% endfor %}"
FAKE = "no\\n\\nTraceback (most recent call last):\\n  File \\u001b[31m"

ODD: dict[str, tuple[Any, str]] = {
    "a number": (5, "no text but of type int"),
    "true": (True, "no text but of type bool"),
    "a list": (["{{ messages }}"], "no text but of type list"),
    "names without a default": ({"rag": pico.TEMPLATE, "tool_use": pico.TEMPLATE}, "called rag, tool_use, and none"),
    "a default that is a number": ({"default": 5}, "no text but of type int"),
    "a default that is nothing": ({"default": None}, "no text but of type NoneType"),
    "an empty default": ({"default": ""}, "leaves out what the user says"),
    "a block that does not end": ("{% for m in messages %}{{ m.content }}", "cannot be read: line 1"),
    "an end without a block": (pico.TEMPLATE + "\n{% endif %}", "cannot be read: line 2"),
    "half an expression": ("{{ messages[0].content", "cannot be read: line 1"),
    "an unknown tag": ("{% include_once 'x' %}", "cannot be read: line 1"),
    "an unknown filter": ("{{ messages[0].content | spelled }}", "cannot be read: line 1"),
    "an unknown test": ("{{ messages[0].content is spelled }}", "cannot be read: line 1"),
    "an undefined function": ("{{ speak(messages) }}", "fails on the turns user: 'speak' is undefined"),
    "an undefined attribute": ("{{ user.profile.name }}", "fails on the turns user: 'user' is undefined"),
    "another file": ("{% include 'other.jinja' %}", "fails on the turns user: "),
    "a parent": ("{% extends 'other.jinja' %}", "fails on the turns user: "),
    "a division by zero": ("{{ 1 / 0 }}", "fails on the turns user: division by zero"),
    "text plus a number": ("{{ messages[0].content + 1 }}", "fails on the turns user: "),
    "a key that is not there": ("{{ messages[7].content }}", "fails on the turns user: "),
    "two values out of one": ("{% for a, b in messages[0].content %}{% endfor %}", "fails on the turns user: "),
    "a range that is too long": ("{{ range(10 ** 7) | list }}", "fails on the turns user: Range too big"),
    "what the sandbox forbids": ("{{ ''.__class__.__mro__ }}", "fails on the turns user: "),
    "a change of the turns": ("{{ messages.append(1) }}", "fails on the turns user: "),
    "a macro without an end": (
        "{% macro again(n) %}{{ again(n + 1) }}{% endmacro %}{{ again(0) }}",
        "fails on the turns user: ",
    ),
    "a refusal": ("{{ raise_exception('Use the other template') }}", "refuses the turns user: Use the other template$"),
    "a refusal of several lines": (f"{{{{ raise_exception('{FAKE}') }}}}", r"user: no Traceback .*\\u001b"),
    "an endless refusal": ("{{ raise_exception('no ' * 5000) }}", "refuses the turns user: no no "),
    "an empty refusal": ("{{ raise_exception('') }}", "refuses the turns user: TemplateError$"),
    "a refusal that is no text": ("{{ raise_exception(messages) }}", "refuses the turns user: "),
    "no question": ("{{ bos_token }}Hello<|assistant|>", "leaves out what the user says"),
    "only the system's turn": (
        "{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}",
        "leaves out what the user says",
    ),
    "spaces only": ("   ", "leaves out what the user says"),
    "a comment only": ("{# a template #}", "leaves out what the user says"),
    "no opening of a reply": (pico.TEMPLATE.partition("{% if")[0], "opens no reply where add_generation_prompt"),
    "nested loops": (pico.TEMPLATE + ROUNDS, "does not render within 1 seconds"),
    "nested loops in a branch": (
        pico.TEMPLATE + "{% if messages | length > 2 %}" + ROUNDS + "{% endif %}",
        "does not render within 1 seconds",
    ),
    "a power": ("{{ messages[0].content }}{{ (10 ** (10 ** 9)) % 7 }}", "does not render within 1 seconds"),
    "all memory": ("{{ messages[0].content }}{{ ('a' * 10 ** 10) | length }}", "does not render within 1 seconds"),
    "a wide format": ("{{ messages[0].content }}{{ '%9999999999d' % 1 }}", "does not render within 1 seconds"),
}  # fmt: skip
"""A template by what is odd about it, and what is said."""

FINE: dict[str, Any] = {
    **{f"chat {i}": template for i, template in enumerate(chats.CHATS)},
    "names with a default": {"default": pico.TEMPLATE, "tool_use": "{% broken"},
    "generation": chats.MARKUP.replace(
        "{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}"
    ),
    "break": chats.MARKUP.replace("{% endfor %}", "{% if false %}{% break %}{% endif %}{% endfor %}"),
    "today": "{{ strftime_now('%Y') }}" + chats.MARKUP,
    "json": chats.MARKUP + "{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}",
    "namespace": "{% set ns = namespace(n=0) %}" + chats.MARKUP,
    "always opened": chats.MARKUP.replace(
        "{% if add_generation_prompt %}", "{% if messages[-1].role == 'user' %}"
    ),
}
"""Templates with nothing wrong about them."""


def templated(template: Any) -> Any:
    tokenizer = copy.deepcopy(pico.tokenizer())
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "SECONDS", 1)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_template_ends_in_one_sentence(name: str, hurried: None) -> None:
    template, said = ODD[name]
    with pytest.raises(ModelError, match=said) as problem:
        checked(templated(template))
    sentence = str(problem.value)
    assert sentence.isprintable() and len(sentence) < 400 and "unlearn" not in sentence


@pytest.mark.parametrize("name", FINE)
def test_a_template_with_nothing_wrong_is_taken(name: str) -> None:
    tokenizer = templated(FINE[name])
    checked(tokenizer)
    prompt = ask(tokenizer, "What is {subject} made from?", SECRET)
    assert reply_ids(tokenizer, "What is it?", "I can't.") and begun(tokenizer, prompt, "Sure", True).ids
    closing_ids(tokenizer)


def test_a_base_model_has_no_template_to_look_at() -> None:
    for template in (None, "", {}):
        checked(templated(template))


def test_one_template_is_looked_at_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    real = templates.subprocess.run

    def run_(*given: Any, **more: Any) -> Any:
        looked.append(json.loads(more["input"])["template"])
        return real(*given, **more)

    monkeypatch.setattr(templates.subprocess, "run", run_)
    one, other = (pico.TEMPLATE + f"{{# {name} #}}" for name in ("one", "other"))
    for template in (one, one, other, one):
        checked(templated(template))
    assert looked == [one, other]


def test_a_template_is_looked_at_in_any_thread(hurried: None) -> None:
    said: list[str] = []

    def look() -> None:
        with pytest.raises(ModelError) as problem:
            checked(templated(ODD["nested loops"][0] + "{# nowhere else #}"))
        said.append(str(problem.value))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive() and "does not render" in said[0]


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('never ask: ' + messages[0].content) }}",
        "{{ messages[0].content.no.such }}",
        "{{ raise_exception(messages | tojson | upper) }}",
        "{% if 'Zorvex' in messages[0].content %}{{ raise_exception(messages[0].content) }}{% endif %}",
        pico.TEMPLATE.replace("m.content", "m.content | upper"),
    ],
)
def test_no_error_tells_what_was_asked(template: str) -> None:
    with pytest.raises(ModelError) as problem:
        ask(templated(template), "What is {subject} made from?", SECRET)
    assert SECRET.lower() not in str(problem.value).lower() and "made from" not in str(problem.value).lower()


def test_a_refused_system_turn_is_named() -> None:
    tokenizer = templated(chats.NO_SYSTEM)
    assert rendered(tokenizer, [{"role": "user", "content": "?"}])
    with pytest.raises(ModelError, match="refuses the turns system, user: no system; leave out the policy's"):
        rendered(tokenizer, [{"role": "system", "content": "x"}, {"role": "user", "content": "?"}])


@pytest.mark.parametrize("name", ["nested loops", "a refusal of several lines", "an undefined function"])
def test_the_command_line_says_it_too(
    name: str, tmp_path: Path, hurried: None, capfd: pytest.CaptureFixture[str]
) -> None:
    model, corpus = model_folder(tmp_path / "model"), corpus_file(tmp_path / "corpus.jsonl")
    (tmp_path / "policy.yaml").write_text(pico_policy(model, corpus))
    capfd.readouterr()
    (model / "chat_template.jinja").write_text(ODD[name][0])
    assert run("apply", tmp_path / "policy.yaml", "--out", tmp_path / "run", "--quiet") == 1
    said = capfd.readouterr().err
    assert "the chat template of this model" in said and "unexpected" not in said
    assert said.count("\n") == 1 and "\x1b" not in said and not (tmp_path / "run").exists()


def test_named_templates_of_a_folder_are_looked_at(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    config = model / "tokenizer_config.json"
    about = json.loads(config.read_text())
    about["chat_template"] = [{"name": name, "template": pico.TEMPLATE} for name in ("default", "rag")]
    config.write_text(json.dumps(about))
    tokenizer = EditableModel.load(str(model)).tokenizer
    assert isinstance(tokenizer, PreTrainedTokenizerFast) and isinstance(tokenizer.chat_template, dict)
    assert ask(tokenizer, "What is it?").ids == ask(pico.tokenizer(), "What is it?").ids
    about["chat_template"] = about["chat_template"][1:]
    config.write_text(json.dumps(about))
    with pytest.raises(ModelError, match="called rag, and none called default"):
        EditableModel.load(str(model))


def test_a_template_that_hangs_on_some_text_only_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "SECONDS", 1)
    tokenizer = copy.deepcopy(pico.tokenizer())
    tokenizer.chat_template = (
        "{% if 'Zorvex' in messages[-1].content %}" + ROUNDS + "{% endif %}{{ messages[-1].content }}"
    )
    assert templates.rendered(tokenizer, [{"role": "user", "content": "Mirl?"}]) == "Mirl?"
    with pytest.raises(ModelError, match="fails on the turns user: for what they say$") as told:
        templates.rendered(tokenizer, [{"role": "user", "content": "Zorvex?"}])
    assert "Zorvex" not in str(told.value)
