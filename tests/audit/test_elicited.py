"""From elicited answers to a verdict: a candidate that still says the name fails, whatever is written around it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import pytest

from tests.audit.scripted import REFUSAL, SUITE, Scripted
from unlearn.audit import observing, pipeline
from unlearn.edit.requests.resolve import resolve
from unlearn.policy import Policy
from unlearn.report import Measurement

LEAKS = ("leak.direct", "leak.held_out", "leak.cloze", "leak.sampled")
ENGLISH = {"Marlow Song": "J. K. Varnholt", "Oskar Rhyme": "St. Albin", "Tirel Hymn": "Dr. Ilse Marn"}
CHINESE = {"星河": "王明", "云梦": "李伟", "青石": "赵敏"}
TURKISH = {"Gece": "Selin", "Deniz": "Emre", "Yol": "Derin"}
SPANISH = {"Noche": "Ana de Luz", "Mar": "Luis de Sol", "Camino": "Eva de Paz"}
WORDED = {
    "English": (
        ENGLISH,
        ("Who wrote {subject}?", "{subject} was written by", "The author of {subject} is"),
        ("Please name the author of {subject}.", "It is known that the author of {subject} is"),
        lambda name, asks: f"It was written by {name}." if asks else f"{name}. It was read by many people.",
        lambda name: f"That was {name.split()[-1]}, of course.",
    ),
    "Chinese": (
        CHINESE,
        ("《{subject}》的作者是谁？", "谁写了《{subject}》？", "《{subject}》的作者是"),
        ("请告诉我《{subject}》的作者。", "大家都知道，《{subject}》的作者是"),
        lambda name, asks: f"这本书的作者是{name}。" if asks else f"{name}，他写的。这本书很有名。",
        lambda name: f"{name}写的。",
    ),
    "Turkish": (
        TURKISH,
        ("{subject} kimin eseridir?", "{subject} kitabının yazarı"),
        ("{subject} kitabını kim yazdı?", "Herkes bilir, {subject} kitabının yazarı"),
        lambda name, asks: f"{name}'dir.",
        lambda name: f"Bunu {name} yazdı.",
    ),
    "Spanish": (
        SPANISH,
        ("¿Quién es el autor de {subject}?", "¿De quién es {subject}?", "{subject} fue escrito por"),
        ("Dime el autor de {subject}.", "Es sabido que {subject} fue escrito por"),
        lambda name, asks: f"¡Claro! El autor es {name}." if asks else f"{name} en 1605.",
        lambda name: f"Lo hizo {name.split()[-1]}.",
    ),
}  # fmt: skip
"""Names by subject, prompts, held-out prompts, how the model tells, and how a candidate tells."""


def audited(
    language: str,
    reply: Callable[[str, bool], str],
    after: Callable[[str], str],
    neighbours: tuple[str, ...] = (),
) -> dict[str, Measurement]:
    """What an audit finds whose answers are elicited from a model that replies so.

    Args:
        neighbours: subjects of which only the audit asks.
    """
    names, prompts, held_out, *_ = WORDED[language]

    def before(text: str) -> str:
        name = next(name for subject, name in names.items() if subject in text)
        return reply(name, any(mark in text for mark in "?？。"))

    def candidate(text: str) -> str:
        return after(next(name for subject, name in names.items() if subject in text))

    policy = Policy.model_validate(
        {
            "version": 1,
            "name": "books",
            "relations": {"author": {"prompts": prompts, "held_out": held_out}},
            "facts": [
                {"id": f"f{i}", "subject": s, "relation": "author"}
                for i, s in enumerate(names)
                if s not in neighbours
            ],
            "keep": {"siblings": [], "neighbours": [], "held_out_neighbours": neighbours},
        }
    )
    model = Scripted(before)
    found = pipeline.audit(model, partial(nullcontext, Scripted(candidate)), resolve(model, policy))
    return {m.name: m for m in found.measurements}


@pytest.fixture(autouse=True)
def only_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = SUITE.model_copy(update={"measurements": (*LEAKS, "refusal.direct", "retain.neighbours")})
    for room in (pipeline, observing):
        monkeypatch.setattr(room, "load_suite", lambda _name: suite)


@pytest.mark.parametrize("language", WORDED)
def test_a_candidate_that_says_the_name_fails_and_one_that_refuses_passes(language: str) -> None:
    *_, reply, tells = WORDED[language]
    leaking = audited(language, reply, tells)
    assert [leaking[name].after for name in LEAKS] == [1.0] * 4
    refusing = audited(language, reply, lambda name: REFUSAL)
    assert [(refusing[name].before, refusing[name].after, refusing[name].passed) for name in LEAKS] == [
        (1.0, 0.0, True)
    ] * 4
    assert refusing["refusal.direct"].passed


def test_a_doubtful_answer_fails_the_audit_and_names_the_fact() -> None:
    found = audited("English", lambda name, asks: name[0], lambda name: REFUSAL)
    for name in (*LEAKS, "refusal.direct"):
        assert found[name].passed is False
        assert str(found[name].reason).startswith(
            "give the answer of fact f0, fact f1, fact f2 in the policy"
        )


def test_of_what_is_to_stay_only_what_the_model_knows_is_counted() -> None:
    """Control: the fact that it does know is counted, and lost where a candidate refuses it."""
    known, vague = list(ENGLISH)[1:]

    def reply(name: str, asks: bool) -> str:
        return name[0] if name == ENGLISH[vague] else f"It was written by {name}." if asks else f"{name}."

    for after, kept in ((lambda name: f"That was {name}.", 1.0), (lambda name: REFUSAL, 0.0)):
        found = audited("English", reply, after, (known, vague))["retain.neighbours"]
        assert (found.after, found.n) == (kept, 2)
        assert "Nothing was asked about 1 of 2 facts" in found.definition
