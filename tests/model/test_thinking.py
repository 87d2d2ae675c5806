"""Marks and switches are found from a template and its tokenizer; targets stand where a reader sees them."""

from __future__ import annotations

import pytest

from tests import pico
from tests.thinking import ASKED_FOR, CHANNELS, EMPTY, OPENED, SWITCHED, tokenizer
from unlearn.model.guard import guarded
from unlearn.model.prompts import ask, begun, reply_ids
from unlearn.model.replies import heard, may_think
from unlearn.model.thinking import decoded, leaving, marks_of, quietest, way_of, ways
from unlearn.thoughts import Marks

THINK = Marks("<think>", "</think>")
REFUSAL = "I can't help with that."
TEMPLATES = {"switched": SWITCHED, "opened": OPENED, "asked_for": ASKED_FOR, "channels": CHANNELS}


@pytest.mark.parametrize(
    ("template", "marks"),
    [
        (SWITCHED, (THINK,)),
        (OPENED, (THINK,)),
        (ASKED_FOR, (Marks("[THINK]", "[/THINK]"),)),
        (CHANNELS, (Marks("<|to|>self:", "<|to|>user:"),)),
        (pico.TEMPLATE, ()),
    ],
)
def test_marks_are_found_from_the_model_in_hand(template: str, marks: tuple[Marks, ...]) -> None:
    assert marks_of(tokenizer(template)) == marks


def test_marks_may_be_known_to_the_vocabulary_alone() -> None:
    assert marks_of(tokenizer(pico.TEMPLATE, ("<reasoning>",))) == (Marks("<reasoning>", "</reasoning>"),)
    assert marks_of(pico.tokenizer(chat=False)) == ()


@pytest.mark.parametrize(
    ("template", "names"),
    [(SWITCHED, ["", "quiet"]), (ASKED_FOR, ["", "thinking"]), (OPENED, [""]), (pico.TEMPLATE, [""])],
)
def test_a_template_is_asked_in_every_way_that_it_has(template: str, names: list[str]) -> None:
    assert [way.name for way in ways(tokenizer(template))] == names


@pytest.mark.parametrize(("template", "argument"), [(SWITCHED, "enable_thinking"), (ASKED_FOR, "thinking")])
def test_a_way_asks_what_a_server_asks_with_the_argument(template: str, argument: str) -> None:
    made = tokenizer(template)
    _, way = ways(made)
    turns = [{"role": "user", "content": "What is Zorvex made from?"}]
    served = made.apply_chat_template(
        turns,
        tokenize=True,
        add_generation_prompt=True,
        return_dict=False,
        **{argument: argument == "thinking"},
    )
    assert list(ask(way.tokenizer, "What is {subject} made from?", "Zorvex").ids) == served
    assert list(ask(made, "What is {subject} made from?", "Zorvex").ids) != served


def test_named_templates_and_guards_have_ways_too() -> None:
    made = tokenizer(SWITCHED)
    made.chat_template = {"default": SWITCHED, "tool_use": pico.TEMPLATE}
    assert [way.name for way in ways(made)] == ["", "quiet"]
    behind = guarded(tokenizer(SWITCHED), "Be brief.")
    _, quiet = ways(behind)
    assert ask(quiet.tokenizer, "Who is {subject}?", "Zorvex").text == (
        f"<|system|>Be brief.<|end|><|user|>Who is Zorvex?<|end|><|assistant|>{EMPTY}"
    )
    assert ask(quiet.tokenizer, "{subject} is", "Zorvex").text == "Be brief.\n\nZorvex is"


def test_the_way_of_a_prompt_is_told_by_its_end() -> None:
    asked = ways(tokenizer(SWITCHED))
    for way in asked:
        assert way_of(asked, ask(way.tokenizer, "Who is {subject}?", "Zorvex").text) is way
    assert quietest(asked[0].tokenizer).chat_template == asked[1].tokenizer.chat_template
    alone = tokenizer(OPENED)
    assert quietest(alone) is alone


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_target_stands_where_a_reader_sees_it(name: str) -> None:
    made = tokenizer(TEMPLATES[name])
    marks = marks_of(made)
    for way in ways(made):
        prompt = ask(way.tokenizer, "What is {subject} made from?", "Zorvex")
        reply = made.decode(reply_ids(way.tokenizer, "?", REFUSAL))
        assert reply.endswith(f"{REFUSAL}<|end|>")
        said = heard(prompt, reply.removesuffix("<|end|>"), marks)
        assert (said.visible, said.thoughts, said.answered) == (REFUSAL, "", True)
        forced = begun(way.tokenizer, prompt, "Sure.", chat=True).text.removeprefix(prompt.text)
        assert heard(prompt, forced, marks).visible == "Sure."


def test_targets_are_what_the_template_itself_writes() -> None:
    made = tokenizer(SWITCHED)
    on, off = ways(made)
    assert made.decode(reply_ids(on.tokenizer, "?", REFUSAL)) == f"{EMPTY}{REFUSAL}<|end|>"
    assert made.decode(reply_ids(off.tokenizer, "?", REFUSAL)) == f"{REFUSAL}<|end|>"
    assert made.decode(reply_ids(tokenizer(OPENED), "?", REFUSAL)) == f"\n</think>\n\n{REFUSAL}<|end|>"
    assert leaving(made, "?<|assistant|>", "<think>\nThe user asks") == "\n\n</think>\n\n"
    assert leaving(made, "?<|assistant|>", "Zorvex") == ""


def test_only_a_reply_in_the_template_may_think() -> None:
    made = tokenizer(SWITCHED)
    on, off = (ask(way.tokenizer, "Who is {subject}?", "Zorvex") for way in ways(made))
    marks = marks_of(made)
    assert may_think(on, marks) and not may_think(off, marks)
    assert not may_think(ask(made, "{subject} is", "Zorvex"), marks)
    assert not may_think(ask(pico.tokenizer(), "Who is {subject}?", "Zorvex"), ())
    text = "<think> salt </think>"
    assert heard(ask(made, "{subject} is", "Zorvex"), text, marks).visible == text


def test_marks_that_are_special_tokens_stay_in_a_reply() -> None:
    made = tokenizer(ASKED_FOR, ("[THINK]", "[/THINK]"))
    text = "[THINK]It is salt.[/THINK]Salt."
    ids = made(f"{text}<|end|>", add_special_tokens=False)["input_ids"]
    assert made.decode(ids, skip_special_tokens=True) == "It is salt.Salt."
    assert decoded(made, [ids]) == [text]
    assert decoded(pico.tokenizer(), [pico.tokenizer()("Salt.<|end|>")["input_ids"]]) == ["Salt."]
