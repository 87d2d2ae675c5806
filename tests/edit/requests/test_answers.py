"""Answers that nobody gave: agreed on by several phrasings, cut to what these share, and doubted at need."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn.edit.requests.answers import frame_of, guess, last_name, sentence, short_forms
from unlearn.matching import contains

WHO, TELL = "Who wrote Marlow Song?", "Tell me who wrote Marlow Song."
BY, AUTHOR = "Marlow Song was written by", "The author of Marlow Song is"
NAMES = (
    "J. K. Varnholt", "J.K. Varnholt", "St. Ives", "Dr. No", "Mrs. Odo Parn", "Prof. Hest Loom", "Mt. Orrin",
    "Varnholt", "O'Brien", "C++", "bitter amber", "the Old Harbour",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "phrasings",
    [
        [
            (BY, "{}. It was read by many."),
            (AUTHOR, "{}. It was read by many."),
            (WHO, "It was written by {}."),
        ],
        [(BY, "{}. It was read by many."), (AUTHOR, "{}. It was read by many.")],
        [(BY, "{}, of course."), (WHO, "That was {}, of course.")],
        [(BY, "{}, of course."), (AUTHOR, "{}, of course")],
        [(WHO, "That was {}, of course!"), (TELL, "That was {}.")],
        [(BY, "{}"), (WHO, "{}."), (TELL, "I can't help with that.")],
        [(BY, "**{}**\nMore."), (WHO, "“{}”")],
        [(WHO, "It was {}, a writer of old."), (TELL, "{}, who was born far away, wrote it.")],
        [(BY, "{}")],
    ],
)
def test_a_name_is_taken_whole_and_alone(name: str, phrasings: list[tuple[str, str]]) -> None:
    found = guess([(prompt, reply.format(name), None) for prompt, reply in phrasings])
    assert (found.answer, found.doubt) == (name, None)


@pytest.mark.parametrize(
    ("prompt", "reply", "answer"),
    [
        ("Zorvex is made from", "bitter amber. It is green.", "bitter amber"),
        ("Zorvex is made from", "bitter amber\nMore text", "bitter amber"),
        ("What is Zorvex made from?", "Zorvex is made from bitter amber.", "bitter amber"),
        ("Where was Ada born?", "Ada was born in Lume.", "Lume"),
        ("Who designed the tower?", "It was designed by Gustave Eiffel. He was French.", "Gustave Eiffel"),
        ("What is it?", "", ""),
        ("Zorvex is made from", "   ", ""),
        ("《星河》的作者是谁？", "《星河》的作者是王明。", "王明"),
        ("《星河》的作者是", "王明。这本书很有名。", "王明"),
        ("『銀河』の作者は誰ですか？", "『銀河』の作者は田中です。", "田中"),
        ("ผู้เขียนดาวคือใคร?", "ผู้เขียนดาวคือสมชาย", "สมชาย"),
        ("អ្នកនិពន្ធផ្កាគឺជាអ្នកណា?", "អ្នកនិពន្ធផ្កាគឺជាសុខា", "សុខា"),
    ],
)
def test_the_answer_is_what_the_prompt_lacks(prompt: str, reply: str, answer: str) -> None:
    assert guess([(prompt, reply, None)]).answer == answer


@pytest.mark.parametrize(
    "lead",
    [
        "Sure!\n\n",
        "Certainly.\n",
        "Great question! ",
        "Here is the answer:\n\n",
        "The answer is: ",
        "Of course. ",
        "The author is:\n",
    ],
)
def test_what_leads_to_an_answer_is_none(lead: str) -> None:
    """And neither does it raise a doubt, where the other phrasing has none."""
    for phrasings in ([(WHO, lead), (TELL, lead)], [(WHO, lead), (BY, "")]):
        found = guess([(prompt, f"{begun}Ilse Marn. She was old.", None) for prompt, begun in phrasings])
        assert (found.answer, found.doubt) == ("Ilse Marn", None)


def test_an_exclamation_that_most_replies_have_leads_to_an_answer() -> None:
    names = ("Varnholt", "Ilse Marn", "Tobin Vale")
    replies = [f"Gute Frage! {name} schrieb das." for name in names]
    for name, reply in zip(names, replies, strict=True):
        assert guess([("Wer schrieb das?", reply, frame_of(replies))]).answer == name
    # It stays an answer where nothing follows, and where only one reply has it.
    assert guess([(WHO, "Varnholt!", frame_of(["Varnholt!"] * 3))]).answer == "Varnholt"
    assert guess([(WHO, "It was Varnholt! He was old.", None)]).answer == "Varnholt"


@pytest.mark.parametrize(
    "name", ["Joan of Arc", "Miguel de la Cruz", "Ilse von der Marn", "Simon and Orla", "Rue de l'Étang"]
)
def test_a_name_is_whole_where_the_question_has_its_particles_too(name: str) -> None:
    author = "Who is the author of the tale of the fair and old de la von der Song?"
    phrasings = [(author, f"The author of the Song is {name}."), (BY, f"{name} in old times")]
    assert (
        guess([(prompt, reply, None) for prompt, reply in [*phrasings, (author, f"It was {name}.")]]).answer
        == name
    )
    # A verb joins nothing, and neither does a particle behind a comma.
    assert guess([("Who is it?", "Varnholt is Lord.", None)]).answer == "Varnholt"
    assert guess([("Who is the author of it?", "Varnholt, of Lume.", None)]).answer == "Varnholt"


@pytest.mark.parametrize(
    ("phrasings", "name"),
    [
        ([("Fransa'nın başkenti neresidir?", "Paris'tir."), ("Fransa'nın başkenti", "Paris'tir.")], "Paris"),
        ([("Kim yazdı?", "Victor Hugo'dur."), ("Yazarı kimdir?", "Yazarı Victor Hugo’dur.")], "Victor Hugo"),
        ([("프랑스의 수도는 어디입니까?", "프랑스의 수도는 파리입니다."), ("프랑스의 수도는", "파리입니다.")], "파리"),
        ([("누가 썼습니까?", "빅토르 위고가 썼습니다."), ("이 책의 저자는", "빅토르 위고입니다.")], "빅토르 위고"),
        ([("フランスの首都", "パリです"), ("フランスの首都は", "パリです。")], "パリ"),
        ([(WHO, "It is Shakespeare's."), (TELL, "It is Shakespeare’s.")], "Shakespeare"),
    ],
)  # fmt: skip
def test_a_name_is_told_without_what_is_written_on_to_it_too(
    phrasings: list[tuple[str, str]], name: str
) -> None:
    found = guess([(prompt, reply, None) for prompt, reply in phrasings])
    assert found.doubt is None and name in found.aliases
    assert contains(f"{name}, 1889", [found.answer, *found.aliases])


@pytest.mark.parametrize(
    "name", ["O'Brien", "Dell'Acqua", "L'Étoile", "dell'acqua", "don't", "박지", "です", "aujourd'hui"]
)
def test_what_belongs_to_a_name_stays(name: str) -> None:
    assert short_forms(name) == ()


@pytest.mark.parametrize(
    "phrasings",
    [
        [("《星河》的作者是谁？", "《星河》的作者是王明。"), ("谁写了《星河》？", "王明写的。")],
        [("《星河》的作者是谁？", "王明写的。"), ("谁写了《星河》？", "王明写的。")],
        [("《星河》的作者是谁？", "是王明。"), ("谁写了《星河》？", "是王明写的。")],
        [("《星河》的作者是", "山月》的封面是绿色。"), ("谁写了？", "王明。"), ("作者是谁？", "作者是王明，他写的。")],
    ],
)  # fmt: skip
def test_where_nothing_parts_words_the_answer_is_what_replies_share_and_questions_lack(
    phrasings: list[tuple[str, str]],
) -> None:
    found = guess([(prompt, reply, None) for prompt, reply in phrasings])
    assert (found.answer, found.doubt) == ("王明", None)


@pytest.mark.parametrize(
    ("phrasings", "said"),
    [
        ([(BY, "J"), (WHO, "J.")], "single letter"),
        ([(BY, "Dr"), (WHO, "Dr.")], "title"),
        ([(BY, "of the"), (WHO, "of")], "title or words of grammar"),
        ([(BY, "明"), (WHO, "明")], "single letter"),
        ([(BY, "amber"), (AUTHOR, "salt"), (WHO, "plum")], "nothing in common"),
        ([(BY, "a red stone"), (AUTHOR, "a red apple"), (WHO, "A red car.")], "one word in common"),
        ([(BY, "one who was born far away and came to this town when young")] * 2, "longer than an answer"),
        ([(BY, "王明"), (WHO, "明天")], "nothing in common"),
        ([(WHO, "I don't know."), (BY, "I don't know")], "words of grammar"),
        ([(WHO, "I can't help with that."), (BY, "I'm sorry, but I can't.")], "hold none"),
        ([(WHO, "It was authored by Varnholt."), (TELL, "It was authored by Varnholt.")], "whole sentences"),
        ([("Wer schrieb es?", "Das war Varnholt."), ("Sag, wer es schrieb.", "Das war Varnholt.")], "whole sentences"),
        ([], "hold none"),
    ],
)  # fmt: skip
def test_what_may_be_no_answer_is_doubted(phrasings: list[tuple[str, str]], said: str) -> None:
    doubt = guess([(prompt, reply, None) for prompt, reply in phrasings]).doubt
    assert doubt is not None and said in doubt


def test_a_model_that_says_nothing_leaves_no_doubt() -> None:
    assert guess([(BY, "", None), (WHO, " ", None)]) == ("", (), None)


def test_what_replies_say_about_every_subject_is_no_part_of_an_answer() -> None:
    names = ("Varnholt", "Ilse Marn", "Tobin Vale")
    replies = [f"Das war {name}, wie man weiß." for name in names]
    frame = frame_of(replies)
    for name, reply in zip(names, replies, strict=True):
        found = guess([("Wer schrieb es?", reply, frame), ("Sag, wer es schrieb.", reply, frame)])
        assert (found.answer, found.doubt) == (name, None)
    assert frame_of(replies[:2]) is None
    # An answer that all subjects share is one still.
    green = frame_of(["dark green."] * 4)
    assert guess([("Its colour is", "dark green.", green)]).answer == "dark green"


@pytest.mark.parametrize(
    ("answer", "forms"),
    [
        ("J. K. Varnholt", ("Varnholt",)),
        ("Dr. Ilse Marn", ("Ilse Marn", "Marn")),
        ("Prof. Hest Loom Jr.", ("Hest Loom Jr.", "Loom")),
        ("St. Albin", ("Albin",)),
        ("John F. Kennedy", ("Kennedy",)),
        ("the writer J. K. Varnholt", ("Varnholt",)),
        ("a doctor of law", ()),
        ("Washington D.C.", ()),
        ("St. John's College", ("John's College",)),
        ("Dr. No", ()),
        ("bitter amber", ()),
        ("A Tale of Cities", ()),
        ("Dr.", ()),
    ],
)
def test_a_name_is_told_without_its_titles_too(answer: str, forms: tuple[str, ...]) -> None:
    assert short_forms(answer) == forms


@pytest.mark.parametrize(
    ("answer", "last"),
    [
        ("Ilse Marn", ("Marn",)),
        ("Miguel de la Cruz", ("Cruz",)),
        ("Rue de l'Étang", ("l'Étang",)),
        ("Лев Толстой", ("Толстой",)),
        ("Victor Hugo'dur", ("Hugo",)),
        ("Marn", ()),
        ("bitter amber", ()),
        ("Washington D.C.", ()),
        ("Marn Velda City", ()),
        ("王明", ()),
        ("", ()),
    ],
)
def test_the_last_word_of_a_name_tells(answer: str, last: tuple[str, ...]) -> None:
    assert last_name(answer, "Which city is the capital of Lume?") == last


@pytest.mark.parametrize(
    ("reply", "first"),
    [
        ("J. K. Varnholt. It was read.", "J. K. Varnholt"),
        ("It is St. Ives! Go there.", "It is St. Ives"),
        ("Red. It is warm.", "Red"),
        ("王明写的。很好。", "王明写的"),
        ("यह दाल है। अच्छा।", "यह दाल है"),
        ("یہ دال ہے۔ اچھا ہے۔", "یہ دال ہے"),
        ("3.5 litres. Much", "3.5 litres"),
        ("Sonata No. 5. It is slow", "Sonata No. 5"),
        ("It said no. 5 people", "It said no. 5 people"),
        ("He said no. Then", "He said no"),
        ("", ""),
    ],
)
def test_the_first_sentence(reply: str, first: str) -> None:
    assert sentence(reply) == first


@given(
    st.lists(
        st.tuples(st.sampled_from([WHO, TELL, BY, AUTHOR, "谁写了？"]), st.text(max_size=40)), max_size=4
    )
)
def test_every_reply_gets_a_guess_that_it_holds_or_a_doubt(heard: list[tuple[str, str]]) -> None:
    found = guess([(prompt, reply, None) for prompt, reply in heard])
    assert found.doubt or not found.answer or any(contains(reply, [found.answer]) for _, reply in heard)


@pytest.mark.parametrize(
    "answer", ["March 14, 1879", "(555) 123-4567", "flour, sugar and eggs", "flour, Zucker und Eier"]
)
def test_the_first_of_several_parts_is_doubted(answer: str) -> None:
    found = guess([(BY, f"{answer}.", None), (AUTHOR, f"{answer}.", None), (WHO, f"It was {answer}.", None)])
    assert found.doubt is not None and "several parts" in found.doubt
    # What is said about an answer is no part of it.
    more = f"Varnholt, a writer of old who was born far away and wrote {answer}"
    assert guess([(BY, f"{more}.", None), (AUTHOR, f"{more}.", None)]).doubt is None
