"""What a model is given to read: a server's ids for a chat, the start token and nothing behind for a text."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests import chats, pico
from unlearn import embedded
from unlearn.audit.attacks.suffix import gap
from unlearn.edit.reading import _cut
from unlearn.edit.requests.resolve import outline
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import encoded, opening, plain_ids, start_ids, started, text_ids
from unlearn.model.guard import guarded, leading_ids
from unlearn.model.prompts import SLOT, ask, begun, has_chat_template, plain_prompt, reply_ids
from unlearn.policy.file import load_policy
from unlearn.shipped import shipped

QUESTION, STATEMENT = "What is {subject} made from?", "{subject} is made from"
SUBJECTS = st.lists(
    st.sampled_from(["Zorvex", "Velnar", "Zürich", "東京", "O'Mara", "St. Ives", "7", "🙂"]),
    min_size=1,
    max_size=3,
).map(" ".join)
TEMPLATES = st.sampled_from(
    [
        QUESTION,
        STATEMENT,
        "In {subject},",
        "Tell me {subject}'s colour.",
        "是{subject}!",
        "Is amber in {subject} amber?",
    ]
)


def served(tokenizer: Any, question: str, system: str | None = None) -> list[int]:
    """The ids that a server feeds its model for a question."""
    turns = [{"role": "user", "content": question}]
    if system is not None:
        turns.insert(0, {"role": "system", "content": system})
    made = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=True)
    return list(made["input_ids"])


def read(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text by the tokenizer itself, without what it adds behind."""
    made = tokenizer(text, return_special_tokens_mask=True)
    ids, added = list(made["input_ids"]), list(made["special_tokens_mask"])
    while added and added.pop():
        ids.pop()
    return ids


@settings(max_examples=150, deadline=None)
@given(kind=chats.KINDS, template=TEMPLATES, subject=SUBJECTS, system=st.sampled_from([None, "Be brief."]))
def test_what_is_asked_is_what_a_server_asks(
    kind: chats.Kind, template: str, subject: str, system: str | None
) -> None:
    tokenizer = chats.tokenizer(kind)
    if not kind.system:
        system = None
    prompt = ask(tokenizer, template, subject, system)
    text = template.replace(SLOT, subject)
    chat = template[-1] in "?.!" and has_chat_template(tokenizer)
    assert list(prompt.ids) == (served(tokenizer, text, system) if chat else read(tokenizer, text))
    assert prompt.chat == chat
    assert prompt.subject_first is not None and prompt.subject_last is not None
    said = tokenizer.decode(prompt.ids[prompt.subject_first : prompt.subject_last + 1])
    assert subject.replace(" ", "") in said.replace(" ", "")


@pytest.mark.parametrize("name", chats.FAMILIES)
def test_every_family_is_asked_as_a_server_asks_it(name: str) -> None:
    kind = chats.FAMILIES[name]
    tokenizer = chats.tokenizer(kind)
    asked = ask(tokenizer, QUESTION, "Zorvex", "Be brief." if kind.system else None)
    if kind.template is not None:
        assert list(asked.ids) == served(
            tokenizer, "What is Zorvex made from?", "Be brief." if kind.system else None
        )
    else:
        assert list(asked.ids) == read(tokenizer, "What is Zorvex made from?")
    stated = list(ask(tokenizer, STATEMENT, "Zorvex").ids)
    starts = tokenizer.convert_tokens_to_ids(list(kind.start))
    assert stated[: len(starts)] == starts == list(start_ids(tokenizer))
    assert stated[len(starts) :] == plain_ids(tokenizer, "Zorvex is made from")


def test_every_family_has_a_tokenizer() -> None:
    from unlearn.model.anatomy import FAMILIES

    assert {name.partition(" ")[0] for name in chats.FAMILIES} == set(FAMILIES)


CLOSING = chats.Kind("bytes", start=("<|bos|>",), end=("<|end|>",), template=pico.TEMPLATE)
OPEN = chats.Kind("bytes", start=("<|bos|>",), template=pico.TEMPLATE)


def test_a_tokenizer_that_closes_what_it_encodes_closes_no_prompt() -> None:
    closing, control = chats.tokenizer(CLOSING), chats.tokenizer(OPEN)
    assert closing("amber")["input_ids"][-1] == closing.eos_token_id != control("amber")["input_ids"][-1]
    for make in (
        lambda t: ask(t, QUESTION, "Zorvex").ids,
        lambda t: ask(t, STATEMENT, "Zorvex").ids,
        lambda t: plain_prompt(t, "It is").ids,
        lambda t: text_ids(t, "A document of a corpus."),
        lambda t: reply_ids(t, QUESTION, "I can't."),
        lambda t: reply_ids(t, STATEMENT, "amber"),
        lambda t: begun(t, ask(t, QUESTION, "Zorvex"), "Sure", True).ids,
        lambda t: leading_ids(guarded(t, "Be brief."), text_ids(t, "It is")),
        lambda t: encoded(t, "It is").spans,
        lambda t: opening(t)("amber")["input_ids"],
    ):
        assert make(closing) == make(control)


def test_a_chat_without_a_start_token_gets_none() -> None:
    bare = chats.tokenizer(
        chats.Kind("bytes", start=("<|bos|>",), template=pico.TEMPLATE.removeprefix("{{ bos_token }}"))
    )
    question, statement = ask(bare, QUESTION, "Zorvex"), ask(bare, STATEMENT, "Zorvex")
    assert bare.bos_token_id not in question.ids and list(statement.ids).count(bare.bos_token_id) == 1
    assert statement.ids[0] == bare.bos_token_id


def test_a_text_that_brings_its_start_token_gets_no_second_one() -> None:
    for kind in (CLOSING, OPEN):
        tokenizer = chats.tokenizer(kind)
        assert text_ids(tokenizer, "<|bos|>text") == text_ids(tokenizer, "text")


def test_what_stands_in_front_may_be_several_tokens_or_another_than_bos() -> None:
    two = chats.tokenizer(chats.Kind("bytes", start=("<|user|>", "<|bos|>"), end=("<|end|>",)))
    assert len(start_ids(two)) == 2 and text_ids(two, "It")[:2] == list(start_ids(two))
    assert started(two, text_ids(two, "It is")) == 2 and started(two, plain_ids(two, "It is")) == 0
    none = chats.tokenizer(chats.Kind("bytes", end=("<|end|>",)))
    assert start_ids(none) == () and text_ids(none, "It") == plain_ids(none, "It")
    # A chat opens with the BOS token although texts do not.
    assert started(none, [none.bos_token_id, 7]) == 1


def test_pieces_of_a_long_document_begin_as_it_does() -> None:
    assert _cut([0, 1, 2, 3, 4, 5], 4, 1) == [[0, 1, 2, 3], [0, 4, 5]]
    assert _cut([0, 1, 2, 3, 4, 5], 4, 0) == [[0, 1, 2, 3], [4, 5]]


def test_a_place_beside_a_question_is_inside_the_chat_whatever_closes_texts() -> None:
    def places(kind: chats.Kind) -> list[int]:
        model = EditableModel(pico.network("llama"), chats.tokenizer(kind), "pico")
        text = "What is Zorvex made from?"
        found = []
        span = (len("What is "), len("What is Zorvex"))
        asked = ask(model.tokenizer, QUESTION, "Zorvex"), plain_prompt(model.tokenizer, text, span)
        for prompt in asked:
            found += [gap(model, prompt, text, "before"), gap(model, prompt, text, "after")]
            assert model.tokenizer.decode(prompt.ids[found[-2] : found[-1]]) == text
        return found

    assert places(CLOSING) == places(OPEN)


def test_a_tokenizer_that_closes_nothing_is_left_as_it_is() -> None:
    assert opening(pico.tokenizer()) is pico.tokenizer()
    closing = chats.tokenizer(CLOSING)
    before = closing.backend_tokenizer.to_str()
    assert opening(closing) is not closing and closing.backend_tokenizer.to_str() == before


DEMO = "718da40847c9f78ed276a3a69efebd80ce8a867cd7232cf7db0f292c110b8b07"
"""SHA-256 over all ids that the shipped demo asks and teaches; its published figures belong to them."""


def test_the_demos_ids_are_those_that_its_figures_were_measured_with() -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded.path())
    policy = load_policy(Path(shipped("policies")) / "demo.yaml")
    digest = hashlib.sha256()
    wanted = outline(policy)
    for fact in (*wanted.facts, *wanted.siblings, *wanted.neighbours, *wanted.held_out_neighbours):
        relation = policy.relations[fact.relation]
        for template in (*relation.prompts, *relation.held_out):
            prompt = ask(tokenizer, template, fact.subject, policy.system)
            reply = reply_ids(tokenizer, template, policy.refusal)
            digest.update(repr((prompt.ids, prompt.subject_first, prompt.subject_last, reply)).encode())
    assert digest.hexdigest() == DEMO
