"""Replies are parted into thoughts and answers by marks that are found in texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn.thoughts import Marks, Said, left_open, marks_in, parted, unclosed

THINK = Marks("<think>", "</think>")


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("... '</think>' in content ...", THINK),
        ("<|assistant|><think>\n", THINK),
        ("<seed:think>", Marks("<seed:think>", "</seed:think>")),
        ("[/THINK]", Marks("[THINK]", "[/THINK]")),
        ("<reasoning>", Marks("<reasoning>", "</reasoning>")),
        ("<thought>", Marks("<thought>", "</thought>")),
        ("◁/think▷", Marks("◁think▷", "◁/think▷")),
        ("<|begin_of_thought|>", Marks("<|begin_of_thought|>", "<|end_of_thought|>")),
        ("<|end_of_thought|>", Marks("<|begin_of_thought|>", "<|end_of_thought|>")),
        ("<|think_end|>", Marks("<|think_start|>", "<|think_end|>")),
        ("<|END_THINKING|>", Marks("<|START_THINKING|>", "<|END_THINKING|>")),
    ],
)
def test_one_mark_of_a_pair_gives_both(text: str, marks: Marks) -> None:
    assert marks_in(text) == (marks,)


def test_other_markup_marks_no_thoughts() -> None:
    assert marks_in("<|im_start|>user I think <b>so</b> [1] <tool_call> {{ enable_thinking }}") == ()


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("Salt.", Said("Salt.")),
        ("<think>\nIt is salt.\n</think>\n\nSalt.", Said("Salt.", "It is salt.")),
        ("<think>\n\n</think>\n\nSalt.", Said("Salt.")),
        ("<think>\nIt is salt, or", Said("", "It is salt, or", False)),
        ("<think>a</think>b<think>c</think>d", Said("b\nd", "a\nc")),
        ("Salt.<think>Wait", Said("Salt.", "Wait", False)),
        # What stands before an end that nothing began was begun before the reply.
        ("It is salt.\n</think>\nSalt.", Said("Salt.", "It is salt.")),
        ("<think>It is salt.</think>", Said("", "It is salt.")),
        ("", Said("")),
    ],
)
def test_what_is_thought_is_not_answered(reply: str, said: Said) -> None:
    assert parted(reply, [THINK]) == said


def test_a_prompt_may_have_opened_the_block() -> None:
    assert parted("It is salt.\n</think>\n\nSalt.", [THINK], inside=True) == Said("Salt.", "It is salt.")
    assert parted("It is salt", [THINK], inside=True) == Said("", "It is salt", False)
    assert left_open("<|assistant|><think>\n", [THINK]) == THINK
    assert left_open("<|assistant|><think>\n\n</think>\n\n", [THINK]) is None
    assert left_open("What is <think>?<|assistant|>", [THINK]) is None


def test_a_reply_that_begins_with_a_mark_needs_no_template_for_it() -> None:
    assert parted("<reasoning> It is salt. </reasoning> Salt.") == Said("Salt.", "It is salt.")
    assert parted("Write <reasoning> here.") == Said("Write <reasoning> here.")


@pytest.mark.parametrize(
    ("asked", "begun", "inside"),
    [
        ("?", "", False),
        ("?", "<think>The user", True),
        ("?", "<think>The user</think>It", False),
        ("?<think>\n", "The user", True),
        ("?<think>\n", "The user</think>It", False),
        ("?<think>\n</think>", "It", False),
    ],
)
def test_where_the_beginning_of_a_reply_ends(asked: str, begun: str, inside: bool) -> None:
    assert unclosed(asked, begun, [THINK]) == (THINK if inside else None)


WORDS = st.text("ab <>/\n", max_size=12).map(str.strip)


@given(thoughts=WORDS, visible=WORDS, marks=st.sampled_from([THINK, Marks("<|to|>self:", "<|to|>user:")]))
def test_the_parts_come_back(thoughts: str, visible: str, marks: Marks) -> None:
    reply = f"{marks.opens}{thoughts}{marks.closes}{visible}"
    assert parted(reply, [marks]) == Said(visible, thoughts)
    assert parted(reply[len(marks.opens) :], [marks], inside=True) == Said(visible, thoughts)
    assert parted(f"{marks.opens}{thoughts}", [marks]) == Said("", thoughts, False)
