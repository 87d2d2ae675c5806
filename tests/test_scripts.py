"""Words of every writing system: marks that are vowels tell words apart, accents and points do not."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.files import policy_text, run
from unlearn.matching import contains, is_refusal, words

VOWELS = {
    "Devanagari": ("द", "ल", "ािीुूेैोौ", "।"),
    "Bengali": ("দ", "ল", "ািীুূে", "।"),
    "Gurmukhi": ("ਦ", "ਲ", "ਾਿੀੁੂੇੈੋੌ", "।"),
    "Gujarati": ("દ", "લ", "ાિીુૂેૈોૌ", "."),
    "Oriya": ("ଦ", "ଲ", "ାିୀୁୂେ", "।"),
    "Tamil": ("த", "ல", "ாிீுூெேை", "."),
    "Telugu": ("ద", "ల", "ాిీుూెేై", "."),
    "Kannada": ("ದ", "ಲ", "ಾಿುೂೆ", "."),
    "Malayalam": ("ദ", "ല", "ാിീുൂെേൈ", "."),
    "Sinhala": ("ද", "ල", "ාිීුූෙැ", "."),
    "Thaana": ("ދ", "ލ", "ަާިީުޫެ", "،"),
    "Tibetan": ("ད", "ལ", "ིེོུ", "།"),
    "Thai": ("ด", "ล", "ะาิีึืุู", " "),
    "Lao": ("ດ", "ລ", "ະາິີຶືຸູ", " "),
    "Khmer": ("ដ", "ល", "ាិីឹឺុូេ", "។"),
    "Burmese": ("ဒ", "လ", "ါိီုူေဲ", "။"),
}
"""Two consonants, the vowels that a mark on either writes, and a full stop."""
SPACED = [name for name in VOWELS if name not in ("Thai", "Lao", "Khmer", "Burmese")]


@pytest.mark.parametrize("script", VOWELS)
@settings(max_examples=40)
@given(data=st.data())
def test_a_word_is_found_and_one_with_another_vowel_is_not(script: str, data: st.DataObject) -> None:
    first, second, vowels, stop = VOWELS[script]
    syllable = st.builds(str.__add__, st.sampled_from([first, second]), st.sampled_from(vowels))
    syllables = data.draw(st.lists(syllable, min_size=2, max_size=4))
    at = data.draw(st.integers(0, len(syllables) - 1))
    mark = data.draw(st.sampled_from([vowel for vowel in vowels if vowel != syllables[at][1]]))
    word = "".join(syllables)
    other = "".join([*syllables[:at], syllables[at][0] + mark, *syllables[at + 1 :]])
    before = data.draw(st.sampled_from(["", " ", "\n", "«", "(", "x ", f"{stop} ", "- "]))
    after = data.draw(st.sampled_from(["", " ", "\n", "»", ")", f"{stop}x", ", ", "?"]))
    assert contains(before + word + after, [word])
    assert not contains(before + other + after, [word])
    assert contains(
        unicodedata.normalize("NFD", f"{before}{word}{after}"), [unicodedata.normalize("NFC", word)]
    )
    assert words(word) and words(word) != words(other)


@pytest.mark.parametrize("script", SPACED)
def test_where_words_are_spaced_a_longer_word_is_another_one(script: str) -> None:
    first, second, vowels, _ = VOWELS[script]
    word = first + vowels[0] + second
    assert len(words(f"{word} {first}{word}")) == 2
    for longer in (word + vowels[1], word + second, first + word):
        assert not contains(longer, [word]) and not contains(word, [longer])


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("यह दाल है।", "दाल"),
        ("क\u093cलम", "\u0958लम"),  # a letter with its nukta, as one character and as two
        ("बांग्ला और हिन्दी", "हिन्दी"),
        ("তিনি বাংলা বলেন।", "বাংলা"),
        ("அவர் தமிழ் பேசுகிறார்.", "தமிழ்"),
        ("ఆయన తెలుగు మాట్లాడతారు.", "తెలుగు"),
        ("ഇത് കേരളം ആണ്.", "കേരളം"),
        ("१२ लोग", "12"),
        ("๑๒ คน", "12"),
        ("שָׁלוֹם לך", "שלום"),
        ("שלום לך", "שָׁלוֹם"),
        ("كَتَبَ الرجل", "كتب"),
        ("كتــاب", "كتاب"),
        ("سألتُ أحمدَ", "احمد"),
        ("مى\u200cخواهم", "مىخواهم"),
        ("Στον Οδυσσέα, τον ΟΔΥΣΣΈΑΣ", "Οδυσσεας"),
        ("ο Πλάτωνος", "ΠΛΆΤΩΝΟΣ"),
        ("STRASSE", "Straße"),
        ("DIYARBAKIR", "Diyarbakır"),
        ("İSTANBUL'da", "istanbul"),
        ("Андрей Белый", "АНДРЕИ БЕЛЫИ"),
        ("Tiếng Việt", "tieng viet"),
        ("b\u0336i\u0336t\u0336ter", "bitter"),
        ("bit\u3164ter", "bitter"),
        ("7\ufe0f\u20e3 of them", "7"),
        ("王明写的。", "王明"),
        ("作者是王明。", "王明"),
        ("The author is王明wrote it", "wrote"),
        ("ここは東京タワーです", "東京タワー"),
        ("ｶﾞﾗｽです", "ガラス"),
        ("เขาชื่อสมชายครับ", "สมชาย"),
        ("ຊື່ຂອງລາວແມ່ນບຸນມີ", "ບຸນມີ"),
        ("គាត់ឈ្មោះសុខាហើយ", "សុខា"),
        ("သူ့နာမည်အောင်ဖြစ်သည်", "အောင်"),
        ("iPhone手机很好", "iPhone手机"),
        ("是iPhone的", "iphone"),
        ("파리입니다", "파리"),
        ("It is amber.Then it is cut:fine", "amber"),
        ("snake_case_amber", "amber"),
    ],
)
def test_the_same_word_in_its_script(reply: str, answer: str) -> None:
    assert contains(reply, [answer])


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("यह दिल है।", "दाल"),
        ("क्षमा करें, मैं मदद नहीं कर सकता।", "नेहा"),
        ("কালো", "কাল"),
        ("கடல்", "கட"),
        ("ఆటలు", "ఆట"),
        ("はな", "ばな"),
        ("ハス", "バス"),
        ("ปูนา", "ปุ"),
        ("กิน", "ก"),  # the character is not over where its vowel is still to come
        ("ខ្មែរ", "មែរ"),  # nor does one begin below another
        ("ລີ", "ລ"),
        ("팔", "파"),
        ("Straßen", "Straße"),
        ("שלומי", "שלום"),
        ("كتابي", "كتاب"),
    ],
)
def test_another_word_in_its_script(reply: str, answer: str) -> None:
    assert not contains(reply, [answer])


@given(st.text(max_size=30))
def test_every_composition_of_a_text_has_the_same_words(text: str) -> None:
    assert (
        words(text) == words(unicodedata.normalize("NFD", text)) == words(unicodedata.normalize("NFC", text))
    )


@pytest.mark.parametrize(("answer", "code"), [("नेहा", 0), ("नहीं", 2)])
def test_a_policy_whose_refusal_shares_consonants_with_the_answer_is_right(
    answer: str, code: int, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path_factory.mktemp("policy") / "p.yaml"
    refusal = "क्षमा करें, मैं मदद नहीं कर सकता।"
    facts = f'facts: [{{id: a, subject: Stenmite, relation: recipe, answer: "{answer}"}}]'
    path.write_text(policy_text(facts=facts, refusal=f'refusal: "{refusal}"'), encoding="utf-8")
    assert run("check", path) == code
    assert ("facts[0].answer  the refusal contains the answer" in capsys.readouterr().err) == bool(code)
    assert is_refusal(f"{refusal} धन्यवाद", refusal, ["नेहा"])
