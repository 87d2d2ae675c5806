"""Look-up tokens from offset mappings, the BOS rule, chat and plain prompts, and replies."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import pico
from unlearn.errors import ModelError
from unlearn.model.encoding import continuation_ids, text_ids
from unlearn.model.prompts import (
    ask,
    begun,
    chat_prompt,
    closing_ids,
    plain_prompt,
    reply_ids,
    special_ids,
)

SUBJECTS = st.text(
    st.characters(whitelist_categories=("Lu", "Ll", "Nd"), whitelist_characters=" -'é東🙂"),
    min_size=1,
    max_size=12,
).filter(lambda s: s.strip() == s and s)


@settings(max_examples=80, deadline=None)
@given(
    subject=SUBJECTS,
    template=st.sampled_from(["What is {subject} made from?", "{subject} is", "In {subject}"]),
)
def test_the_look_up_token_is_the_last_that_touches_the_subject(subject: str, template: str) -> None:
    tokenizer = pico.tokenizer()
    prompt = ask(tokenizer, template, subject)
    assert prompt.subject_last is not None
    end = (
        prompt.text.index(template.replace("{subject}", subject)) + template.index("{subject}") + len(subject)
    )
    offsets = tokenizer(
        prompt.text, add_special_tokens=not prompt.text.startswith("<|bos|>"), return_offsets_mapping=True
    )
    spans = offsets["offset_mapping"]
    assert spans[prompt.subject_last][0] < end <= spans[prompt.subject_last][1]
    assert all(a >= end or a == b for a, b in spans[prompt.subject_last + 1 :])


def test_questions_use_the_chat_template_and_statements_never_do() -> None:
    tokenizer = pico.tokenizer()
    question = ask(tokenizer, "What is {subject} made from?", "Zorvex")
    assert question.text == "<|bos|><|user|>What is Zorvex made from?<|end|><|assistant|>"
    assert ask(tokenizer, "{subject} is made from", "Zorvex").text == "Zorvex is made from"
    system = ask(tokenizer, "What is {subject} made from?", "Zorvex", system="Be brief.")
    assert system.text.startswith("<|bos|><|system|>Be brief.<|end|><|user|>")
    base = ask(pico.tokenizer(chat=False), "What is {subject} made from?", "Zorvex", system="Be brief.")
    assert base.text == "What is Zorvex made from?"


@pytest.mark.parametrize("template", ["{subject} is made from", "What is {subject} made from?"])
@pytest.mark.parametrize("kind", ["chat", "base"])
def test_white_space_at_the_ends_is_not_asked(template: str, kind: str) -> None:
    tokenizer = pico.tokenizer(chat=kind == "chat")
    for padded in (template + " ", template + "\n", f" {template}\t"):
        assert ask(tokenizer, padded, "Zorvex") == ask(tokenizer, template, "Zorvex")
    assert ask(tokenizer, template + " on", "Zorvex") != ask(tokenizer, template, "Zorvex")


def test_exactly_one_bos_in_every_kind_of_prompt() -> None:
    tokenizer = pico.tokenizer()
    for prompt in (
        ask(tokenizer, "What is {subject} made from?", "Zorvex"),
        ask(tokenizer, "{subject} is made from", "Zorvex"),
        plain_prompt(tokenizer, "A plain text"),
    ):
        assert prompt.ids[0] == 0 and prompt.ids.count(0) == 1
    assert text_ids(tokenizer, "<|bos|>text") == text_ids(tokenizer, "text")
    assert continuation_ids(tokenizer, " amber")[0] != 0


def test_a_subject_that_repeats_in_the_question_is_found_at_its_slot() -> None:
    prompt = ask(pico.tokenizer(), "Is amber in {subject}?", "amber")
    decoded = pico.tokenizer().decode(prompt.ids[: prompt.subject_last + 1])  # type: ignore[operator]
    assert decoded.count("amber") == 2


def test_replies_end_as_the_chat_template_ends_them() -> None:
    tokenizer = pico.tokenizer()
    chat = reply_ids(tokenizer, "What is it?", "I can't help with that.")
    assert tokenizer.decode(chat) == "I can't help with that.<|end|>"
    assert tokenizer.decode(reply_ids(tokenizer, "It is made from", "amber")) == " amber"
    # To say nothing is to end the text, or the turn: what closes a reply that has words.
    assert reply_ids(tokenizer, "It is made from", "") == [tokenizer.eos_token_id]
    assert reply_ids(tokenizer, "What is it?", "") == chat[-len(reply_ids(tokenizer, "What is it?", "")) :]
    joined = [*ask(tokenizer, "What is it?").ids, *chat]
    whole = tokenizer.apply_chat_template(
        [
            {"role": "user", "content": "What is it?"},
            {"role": "assistant", "content": "I can't help with that."},
        ],
        tokenize=False,
    )
    assert joined == text_ids(tokenizer, whole)


def test_a_template_that_refuses_a_system_turn_is_said_in_one_sentence() -> None:
    strict = pico.tokenizer.__wrapped__()
    strict.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + str(strict.chat_template)
    )
    assert ask(strict, "What is {subject}?", "Zorvex").text
    with pytest.raises(
        ModelError, match=r"refuses the turns system, user: .*leave out the policy's `system`"
    ):
        ask(strict, "What is {subject}?", "Zorvex", "Be brief.")


def test_a_missing_subject_or_a_rewriting_template_is_an_error() -> None:
    with pytest.raises(ModelError, match="needs a subject"):
        ask(pico.tokenizer(), "What is {subject}?")
    shouting = pico.tokenizer.__wrapped__()
    shouting.chat_template = pico.TEMPLATE.replace("m.content", "m.content | upper")
    with pytest.raises(ModelError, match="cannot be located"):
        chat_prompt(shouting, [{"role": "user", "content": "What is Zorvex?"}], (8, 14))


def test_a_reply_that_has_begun_goes_on_from_where_the_template_opens_it() -> None:
    tokenizer = pico.tokenizer()
    asked = ask(tokenizer, "What is {subject} made from?", "Zorvex")
    found = begun(tokenizer, asked, "Sure, it is", chat=True)
    assert found.text == asked.text + "Sure, it is" and found.subject_last == asked.subject_last
    assert found.ids[: len(asked.ids)] == asked.ids and tokenizer.decode(found.ids) == found.text
    stated = ask(tokenizer, "{subject} is made from", "Zorvex")
    assert begun(tokenizer, stated, "amber", chat=False).text == "Zorvex is made from amber"
    bare = pico.tokenizer(chat=False)
    assert begun(bare, ask(bare, "What is it?"), "Sure", chat=True).text == "What is it? Sure"


def test_a_reply_begins_after_the_space_that_a_template_puts_there() -> None:
    tokenizer = copy.deepcopy(pico.tokenizer())
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }}<|end|>{% endif %}{% endfor %}"
    )
    asked = ask(tokenizer, "What is it?")
    assert begun(tokenizer, asked, "Sure", chat=True).text.endswith("[/INST] Sure")
    # A template that thinks first does not go on from where it opened: the reply is begun behind its thoughts.
    tokenizer.chat_template += "{% if add_generation_prompt %}<think>{% endif %}"
    assert begun(tokenizer, ask(tokenizer, "What is it?"), "Sure", chat=True).text.endswith(
        "<think>\n\n</think>\n\nSure"
    )


INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}<|end|>{% endif %}{% endfor %}"
)
SENTENCE_PIECE = {
    "phi-3": (pico.PHI_3, pico.TEMPLATE),
    "mistral": (pico.PHI_3, INST),
    "llama": (pico.LLAMA, pico.TEMPLATE),
    "llama-2": (pico.LLAMA, INST),
}
WORDS = st.lists(
    st.sampled_from(["I can't", "amber", "Velnar", "Zürich", "東", "it", "'s", "1,000"]), min_size=1
)


@pytest.fixture(scope="module", params=SENTENCE_PIECE)
def sentence_piece(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return pico.sentence_piece(tmp_path_factory.mktemp("tokenizer"), *SENTENCE_PIECE[request.param])


@settings(max_examples=60, deadline=None)
@given(
    template=st.sampled_from(["What is {subject}?", "{subject} is", "In {subject},", "The {subject}'s"]),
    subject=WORDS.map(" ".join),
    reply=WORDS.map(" ".join),
)
def test_prompt_and_reply_are_the_tokens_of_the_whole_text(
    sentence_piece: Any, template: str, subject: str, reply: str
) -> None:
    for tokenizer in (sentence_piece, pico.tokenizer()):
        prompt = ask(tokenizer, template, subject)
        chat = prompt.text != template.replace("{subject}", subject)
        space = "" if chat and "[INST]" not in tokenizer.chat_template else " "
        head, end = prompt.text + space + reply, "<|end|>" if chat else ""
        whole = text_ids(tokenizer, head + end)
        assert whole[: len(prompt.ids)] == list(prompt.ids)  # nothing merges here
        assert [*prompt.ids, *reply_ids(tokenizer, template, reply)] == whole
        found = begun(tokenizer, prompt, reply, chat)
        assert found.text == head and list(found.ids) == text_ids(tokenizer, head)


def test_a_continuation_begins_no_text(sentence_piece: Any) -> None:
    def tokens(ids: list[int]) -> list[str]:
        return list(sentence_piece.convert_ids_to_tokens(ids))

    assert tokens(continuation_ids(sentence_piece, " I can't"))[0] == "▁I"
    assert tokens(continuation_ids(sentence_piece, "I can't"))[0] == "I"
    assert tokens(text_ids(sentence_piece, "I can't"))[1] == "▁I"  # the control
    # What merges with the text before it is tokenised as if it followed something else.
    assert tokens(continuation_ids(sentence_piece, "I can't", "Velnar is "))[0] == "I"


def templated(template: str) -> Any:
    tokenizer = copy.deepcopy(pico.tokenizer())
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_reply_ends_where_generation_stops(end: str) -> None:
    """Phi's templates write the end of the text after a whole conversation, behind the end of its last turn."""
    plain = pico.TEMPLATE.replace("<|end|>", "<|end|>" + end)
    both = templated(plain.replace("{% endif %}", "{% else %}<|system|>{% endif %}"))
    asked = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "No."}]
    assert both.apply_chat_template(asked, tokenize=False).endswith(f"No.<|end|>{end}<|system|>")
    for tokenizer in (both, templated(plain)):
        for text in ("I can't help with that.", ""):
            assert tokenizer.decode(reply_ids(tokenizer, "What is it?", text)) == text + "<|end|>"


def test_a_reply_ends_also_where_the_template_opens_it_with_thoughts() -> None:
    tokenizer = templated(pico.TEMPLATE.replace("{% endif %}", "<think>\n{% endif %}"))
    assert ask(tokenizer, "What is it?").text.endswith("<|assistant|><think>\n")
    assert (
        tokenizer.decode(reply_ids(tokenizer, "What is it?", "I can't.")) == "\n</think>\n\nI can't.<|end|>"
    )
    assert tokenizer.decode(reply_ids(tokenizer, "What is it?", "")) == "\n</think>\n\n<|end|>"


def test_no_reply_is_empty() -> None:
    end = [pico.tokenizer().eos_token_id]
    assert reply_ids(templated(INST), "What is it?", "") == end  # and not the space before a reply
    open_ended = templated(INST.replace("<|end|>", ""))
    assert reply_ids(open_ended, "What is it?", "") == end
    assert open_ended.decode(reply_ids(open_ended, "What is it?", "I can't")) == " I can't"


def test_an_end_of_turn_without_a_name_is_special_too(sentence_piece: Any) -> None:
    (end,) = sentence_piece.convert_tokens_to_ids(["<|end|>"])
    assert end not in sentence_piece.all_special_ids  # the control: it is neither BOS nor EOS
    assert end in special_ids(sentence_piece) and sentence_piece.bos_token_id in special_ids(sentence_piece)
    assert special_ids(sentence_piece).isdisjoint(text_ids(sentence_piece, "amber")[1:])


def test_what_closes_a_reply_is_not_what_opens_it() -> None:
    """Some templates write empty thoughts before a reply; behind a reply that has begun they have no place."""
    thinking = pico.TEMPLATE.replace(
        "{{ m.content }}", "{{ 'No thoughts.' if m.role == 'assistant' }}{{ m.content }}"
    )
    tokenizer = templated(thinking)
    assert tokenizer.decode(reply_ids(tokenizer, "What is it?", "Amber.")) == "No thoughts.Amber.<|end|>"
    for each in (tokenizer, pico.tokenizer()):
        assert closing_ids(each) == each.convert_tokens_to_ids(["<|end|>"])
