import pytest

from unlearn.audit.asking import by_chance, outcome
from unlearn.audit.probes import Probe
from unlearn.model.prompts import Prompt

PROMPT = Prompt("Say it.", (1,))
SALT, ASH = ("salt",), ("ash", "wood ash")


def probe(*answers: str) -> Probe:
    return Probe("f/0", PROMPT, answers, "f")


def test_what_comes_up_about_other_facts_is_chance() -> None:
    answers = {SALT: 2, ASH: 3, ("honey",): 1}
    assert by_chance(probe("honey"), ["It is salt.", "Nothing."], answers) == pytest.approx(2 / 5)
    assert by_chance(probe("honey"), ["It is Wood Ash.", "Salt"], answers) == 1.0
    assert by_chance(probe("honey"), ["It is honey."], answers) == 0.0


def test_answers_that_share_a_word_with_the_own_one_say_nothing() -> None:
    assert by_chance(probe("sea salt"), ["sea salt"], {SALT: 1, ("sea salt",): 4, ASH: 1}) == 0.0
    assert by_chance(probe("ash"), ["ash"], {ASH: 4}) is None


def test_an_outcome_keeps_its_chance() -> None:
    assert outcome(probe("ash"), ["ash"], "no", 0.25).chance == 0.25
    assert outcome(probe("ash"), ["ash"], "no").chance is None
