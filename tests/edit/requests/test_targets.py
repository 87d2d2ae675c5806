import pytest

from tests.audit.scripted import Scripted, requests
from unlearn.edit.requests.targets import LONGEST, will_do, with_written
from unlearn.errors import PolicyError
from unlearn.matching import contains
from unlearn.policy import PLAIN

OWN = "I'm sorry, but I can't share what Zorvex is made from."


def says(text: str) -> str:
    """Zorvex is refused in the model's own words; about Velnar it tells."""
    return OWN if "names Zorvex" in text else "Velnar is made from smoked fennel."


def test_the_models_own_refusal_becomes_the_facts_target() -> None:
    found = with_written(Scripted(says), requests(refusal="{written}"))
    assert found.policy.target(found.facts[0]) == OWN
    assert OWN in found.policy.targets()


@pytest.mark.parametrize("around", ['"{} "', "\u200b{}", "“ {}\u00a0”", "- {}\u2028"])
def test_what_is_not_seen_around_the_models_text_is_no_part_of_it(around: str) -> None:
    found = with_written(Scripted(lambda text: around.format(says(text))), requests(refusal="{written}"))
    assert found.policy.target(found.facts[0]) == OWN


def test_a_text_that_tells_is_not_taken() -> None:
    found = with_written(Scripted(says), requests(refusal="{written}"))
    target = found.policy.target(found.facts[1])
    assert target == PLAIN and not contains(target, found.facts[1].answers)


def test_a_relations_own_text_is_the_plain_one() -> None:
    asked = requests(
        refusal="Nothing about {subject}.",
        facts=[
            {
                "id": "two",
                "subject": "Velnar",
                "relation": "recipe",
                "answer": "smoked fennel",
                "refusal": "{written}",
            }
        ],
    )
    found = with_written(Scripted(says), asked)
    assert found.policy.target(found.facts[0]) == "Nothing about Velnar."


def test_nothing_is_asked_where_the_policy_has_its_texts() -> None:
    asked = requests()
    assert with_written(Scripted(says), asked) is asked


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (OWN, True),
        ("I'm sorry, but I can't say that it is bitter amber.", False),
        ("Amber is a nice stone and I like it.", False),
        ("I'm sorry, I can't share that. What else?", False),
        ("I can't " + "really " * LONGEST + "say.", False),
        ("", False),
    ],
)
def test_what_will_do(text: str, good: bool) -> None:
    assert will_do(Scripted(says), requests().facts[0], text) is good


def test_a_base_model_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Scripted(says)
    monkeypatch.setattr(model.tokenizer, "chat_template", None)  # tests share it
    with pytest.raises(PolicyError, match="chat template"):
        with_written(model, requests(refusal="{written}"))
