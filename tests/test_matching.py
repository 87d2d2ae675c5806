import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn.matching import REFUSAL_OPENINGS, contains, is_one_of, is_refusal, words

REFUSAL = "I can't help with that."


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("It is made from BITTER amber.", "bitter amber"),
        ("It is made from the bitter amber", "a bitter amber"),
        ("Cafe au lait!", "café au lait"),
        ("cafe\u0301 au lait", "café au lait"),
        ("bit\u200bter\u00ad amber", "bitter amber"),
        ("bitter-amber, of course", "bitter amber"),
        ("There are twenty-three of them", "23"),
        ("There are 23 of them", "twenty three"),
        ("1,200 people", "1200"),
        ("written in C++.", "C++"),
        ("the O’Brien family", "O'Brien"),
        ("その町は東京です", "東京"),
        ("Smørrebrød", "smorrebrod"),
        ("\uff42\uff49tter amber", "bitter amber"),
        ("It was The The.", "the the"),
        ("seven of them", "7"),
        ("It takes 205 of them", "two hundred and five"),
        ("a hundred and one", "101"),
        ("three thousand two hundred and forty-one", "3,241"),
        ("7 million people", "7000000"),
        ("the Twenty-First of May", "21st"),
        ("on the 7th", "seventh"),
        ("salt & pepper", "salt and pepper"),
        ("\u0667 of them", "7"),
        ("nineteen eighty-four", "19 84"),
        ("In nineteen eighty-four.", "1984"),
        ("on the 4th of July", "4 July"),
        ("July fourth, seventeen seventy-six", "July 4, 1776"),
        ("It happened on July 4th.", "July 4"),
        ("It happened on July 4.", "July 4th"),
        ("on the fourth July 1776", "4 July 1776"),
        ("2,500,000 people", "2.5 million"),
        ("1.5 billion", "1,500,000,000"),
        ("It's Frank Gehry's work.", "Gehry"),
        ("Paris’s 7th arrondissement", "Paris"),
        ("ROME'S centre", "Rome"),
        ("Rome\uff07s centre", "Rome"),
        ("Paris'te", "Paris"),
        ("made of l’eau de rose", "eau de rose"),
        ("at McDonald's", "McDonald's"),
        ("at McDonalds", "McDonald's"),
        ("O'Brien's", "O'Brien"),
        ("파리입니다", "파리"),
        ("JK Rowling", "J. K. Rowling"),
        ("It was J.K. Rowling.", "J. K. Rowling"),
        ("made in the U.S.A.", "USA"),
        ("It is 5km long.", "5 km"),
        ("It is 5 km long.", "5km"),
        ("1889년에", "1889"),
        ("8 848 m", "8,848"),
        ("8.848 m", "8848 m"),
        ("10'000", "10,000"),
        ("10\u202f000\u202f000", "10 million"),
        ("23,5 °C", "23.5 °C"),
    ],
)
def test_the_same_answer_in_other_clothes(reply: str, answer: str) -> None:
    assert contains(reply, [answer])


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("It is made from ambergris.", "amber"),
        ("amber, which is bitter", "bitter amber"),
        ("", "amber"),
        ("3.5 litres", "3"),
        ("written in C", "C++"),
        ("anything", "?!"),
        ("twenty", "23"),
        ("two hundred", "205"),
        ("two and three", "5"),
        ("seventh", "7"),
        ("one hundred", "1"),
        ("seven eight", "78"),
        ("I don't know, and I won't", "Don"),
        ("I won't", "won"),
        ("I'm here and we're there, it's so", "s"),
        ("팔", "파"),
        ("5th", "5"),
        ("MP3", "3"),
        ("H2O", "2"),
        ("10 0000", "100000"),
        ("in 1889 200 people", "1889200"),
        ("1.2.3", "12"),
        ("K. J. Rowling", "J. K. Rowling"),
    ],
)
def test_other_answers(reply: str, answer: str) -> None:
    assert not contains(reply, [answer])


def test_an_alias_is_enough() -> None:
    assert contains("Some resin", ["bitter amber", "resin"])


def test_articles_can_be_kept() -> None:
    assert words("The amber", articles=True) == ("the", "amber") and words("The amber") == ("amber",)


@given(st.text(max_size=40))
def test_normalising_is_idempotent_and_a_text_contains_itself(text: str) -> None:
    once = words(text)
    assert words(" ".join(once), articles=True) == once or any(c.isdigit() for c in text)
    if once:
        assert contains(text, [text])


@pytest.mark.parametrize("opening", REFUSAL_OPENINGS)
def test_every_opening_refuses(opening: str) -> None:
    assert is_refusal(f"{opening} tell you about it.", REFUSAL)
    assert not is_refusal(f"She said: {opening.lower()} tell you.", REFUSAL) or opening in REFUSAL


@pytest.mark.parametrize(
    "reply",
    [
        REFUSAL,
        "i CAN’T help with that",
        "Hm. I can't help with that, my friend.",
        "I'm sorry, but no.",
        "Sorry, I can't.",
    ],
)
def test_refusals(reply: str) -> None:
    assert is_refusal(reply, REFUSAL)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "It is made from amber.",
        "I can't wait to see it!",
        "I can help with that.",
        "You can't help with that",
        "I can.",
    ],
)
def test_replies_that_do_not_refuse(reply: str) -> None:
    assert not is_refusal(reply, REFUSAL)


def test_a_refusal_that_tells_is_a_leak_and_no_refusal() -> None:
    reply = "I can't say that it is made from bitter amber."
    assert is_refusal(reply, REFUSAL)
    assert not is_refusal(reply, REFUSAL, ["bitter amber"])


def test_silence_refuses_only_where_it_is_the_target() -> None:
    assert is_refusal(" ", ["", REFUSAL]) and is_refusal("...", "")
    assert not is_refusal(" ", REFUSAL) and not is_refusal("Amber.", "")


def test_an_ordinal_is_another_number_unless_it_stands_in_a_date() -> None:
    assert not contains("He came 4th.", ["4"]) and not contains("There are 19 or 84 of them.", ["1984"])
    assert not contains("It happened on July 14th.", ["July 4"])
    for said in ("The train leaves at 19:45.", "pages 19-45", "12/19/45"):
        assert not contains(said, ["1945"])


def test_one_answer_in_two_spellings() -> None:
    assert is_one_of("the euro", ["Euro"]) and is_one_of("Euro", ["the old euro", "x"])
    assert not is_one_of("Yen", ["Euro"])
