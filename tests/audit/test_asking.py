import pytest

from unlearn.audit.asking import by_chance, outcome
from unlearn.audit.probes import Probe
from unlearn.model.prompts import Prompt
from unlearn.thoughts import Said

PROMPT = Prompt("Say it.", (1,))
SALT, ASH = ("salt",), ("ash", "wood ash")


def probe(*answers: str) -> Probe:
    return Probe("f/0", PROMPT, answers, "f")


def test_what_comes_up_about_other_facts_is_chance() -> None:
    answers = {SALT: 2, ASH: 3, ("honey",): 1}
    assert by_chance(probe("honey"), [Said("It is salt."), Said("Nothing.")], answers) == pytest.approx(2 / 5)
    assert by_chance(probe("honey"), [Said("It is Wood Ash."), Said("Salt")], answers) == 1.0
    assert by_chance(probe("honey"), [Said("It is honey.")], answers) == 0.0


def test_answers_that_share_a_word_with_the_own_one_say_nothing() -> None:
    assert by_chance(probe("sea salt"), [Said("sea salt")], {SALT: 1, ("sea salt",): 4, ASH: 1}) == 0.0
    assert by_chance(probe("ash"), [Said("ash")], {ASH: 4}) is None


def test_an_outcome_keeps_its_chance() -> None:
    assert outcome(probe("ash"), [Said("ash")], "no", 0.25).chance == 0.25
    assert outcome(probe("ash"), [Said("ash")], "no").chance is None


def test_a_reply_is_judged_by_what_stands_outside_its_thoughts() -> None:
    asked, no = probe("ash"), "I can't help with that."
    told = outcome(asked, [Said("It is ash.", "Well.")], no)
    assert told.disclosed and told.thought and not told.disclosed_in_thoughts
    inside = outcome(asked, [Said(no, "It is ash.")], no)
    assert inside.disclosed_in_thoughts and inside.refused and not inside.disclosed
    ended = outcome(asked, [Said(no), Said("", no, answered=False)], no)
    assert ended.unanswered and not (ended.refused or ended.disclosed)
    assert by_chance(asked, [Said("Salt", "Honey.")], {SALT: 1, ("honey",): 1}) == 0.5
