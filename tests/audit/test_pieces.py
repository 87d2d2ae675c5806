"""An interrupted observation goes on where it stopped, and never on what was made for something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.audit.scripted import SUITE, Scripted, knows, refuses, requests, scrubbed, suite_of
from unlearn.audit import estimate, observing
from unlearn.audit.attacks import table
from unlearn.audit.attacks.scene import Attack, Scene, recovered
from unlearn.audit.cache import Folder, Paces, depends, observed
from unlearn.audit.observation import Attacked, Observation
from unlearn.audit.observing import observe
from unlearn.audit.pieces import Piece, assembled
from unlearn.errors import AuditError
from unlearn.measurements import Row
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import Prompt
from unlearn.model.requests import Fact, Requests
from unlearn.progress import Progress
from unlearn.store import Store


class Stop(BaseException):
    """Ctrl-C, as far as an audit is concerned."""


class Attempts:
    """Attacks that count how often they ran, and stop or fail when they are told to."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.problem: dict[str, BaseException] = {}

    def row(self, name: str) -> Attack:
        def run(model: EditableModel, scene: Scene, progress: Progress) -> Attacked:
            self.made.append(name)
            if name in self.problem:
                raise self.problem[name]
            return Attacked(outcomes=recovered(model, scene, progress))

        return Attack(Row(f"attack.{name}", "asks"), run)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Attempts]:
    """A suite with two attacks."""
    found = Attempts()
    rows = {name: found.row(name) for name in ("first", "second")}
    for room in (table, observing, estimate):
        monkeypatch.setattr(room, "ATTACKS", rows)
    suite = SUITE.model_copy(update={"measurements": (*SUITE.measurements, "attack.first", "attack.second")})
    monkeypatch.setattr(observing, "load_suite", lambda _name: suite)
    yield found


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Observation]:
    """Observe an edited model with its pieces in the same cache every time."""

    def run(
        script: Callable[[str], str] = scrubbed, asked: Requests | None = None, said: str = "", seed: int = 0
    ) -> Observation:
        model, asked = Scripted(script, seed), asked or requests()
        pieces = Folder.of(Store.at(tmp_path), model, asked, "base", said)
        return observe(model, asked, state="after", pieces=pieces)

    return run


def test_an_interrupted_observation_goes_on_where_it_stopped(
    attempts: Attempts, ask: Callable[..., Observation]
) -> None:
    attempts.problem["second"] = Stop()
    with pytest.raises(Stop):
        ask()
    assert attempts.made == ["first", "second"]
    attempts.problem.clear()
    # A script that tells: whatever is asked again would show.
    resumed = ask(knows)
    assert attempts.made == ["first", "second", "second"]
    assert not any(outcome.disclosed for outcome in resumed.groups["direct"])
    assert not any(outcome.disclosed for outcome in resumed.attacks["first"].outcomes)
    assert all(outcome.disclosed for outcome in resumed.attacks["second"].outcomes)


def test_pieces_of_something_else_are_not_used(attempts: Attempts, ask: Callable[..., Observation]) -> None:
    whole = ask()
    assert attempts.made == ["first", "second"]
    assert ask() == whole and len(attempts.made) == 2
    # Other weights, another question, another header: nothing of it was measured before.
    for change in ({"seed": 1}, {"asked": requests(refusal="No.")}, {"said": "another patch"}):
        before = len(attempts.made)
        ask(**change)
        assert len(attempts.made) == before + 2, change
    # Other limits change what is judged, not what was seen.
    assert ask(asked=requests(audit={"limits": {"leak.direct": 0.5}})) == whole


def test_a_failed_piece_is_made_again(attempts: Attempts, ask: Callable[..., Observation]) -> None:
    attempts.problem["first"] = torch.OutOfMemoryError("no memory for this")
    found = ask()
    assert "no memory for this" in found.failed["attack.first"] and "second" in found.attacks
    attempts.problem.clear()
    assert not ask().failed
    assert attempts.made == ["first", "second", "first"]


def test_an_attack_that_leaves_another_model_behind_ends_the_audit(
    monkeypatch: pytest.MonkeyPatch, attempts: Attempts
) -> None:
    def careless(model: EditableModel, scene: Scene, progress: Progress) -> Attacked:
        model.weight(model.anatomy.weight_name(0))[0, 0] += 0.5
        return Attacked(outcomes=recovered(model, scene))

    monkeypatch.setattr(
        observing,
        "ATTACKS",
        {"first": Attack(Row("attack.first", "x"), careless), "second": attempts.row("second")},
    )
    with pytest.raises(AuditError, match="attack.first has left another model behind"):
        observe(Scripted(scrubbed), requests())


def test_a_whole_observation_of_the_unedited_model_leaves_no_pieces(
    attempts: Attempts, tmp_path: Path
) -> None:
    model = Scripted(knows)

    def again(script: Callable[[str], str]) -> Observation:
        return observed(
            model,
            requests(),
            Store.at(tmp_path),
            lambda pieces: observe(Scripted(script), requests(), pieces=pieces),
        )

    first = again(knows)
    assert list((tmp_path / "observations").iterdir()) and not list((tmp_path / "pieces").glob("*/*"))
    assert again(refuses) == first


def test_the_bar_counts_every_piece_and_kept_ones_too() -> None:
    class Kept:
        def __init__(self) -> None:
            self.steps: list[int] = []

        def find(self, name: str) -> Observation | None:
            return Observation(suite="s", failed={name: "kept"}) if name == "b" else None

        def keep(self, piece: Piece, made: Observation, seconds: float) -> None:
            self.steps.append(round(piece.work))

        def seconds(self, piece: Piece) -> float:
            return 2 * piece.work

        def clear(self) -> None:
            raise AssertionError("only whoever used the observation may clear its pieces")

    kept = Kept()
    todo = [Piece(name, 3.0, lambda: Observation(suite="s")) for name in "abc"]
    found = assembled(Observation(suite="s"), todo, kept)
    assert kept.steps == [3, 3] and found.failed == {"b": "kept"}


def test_paces_are_remembered_by_model_and_kind(tmp_path: Path) -> None:
    paces = Paces(Store.at(tmp_path), "embedded", "cpu")
    assert paces.known("asked.direct") is None
    paces.note("asked.direct", 1000, 2.0)
    paces.note("asked.benign", 10, 90.0)  # too few to tell anything
    paces.note("attack.lens", 100, 5.0)
    paces.note("attack.lens", 100, 15.0)
    again = Paces(Store.at(tmp_path), "embedded", "cpu")
    assert again.known("asked.held_out") == pytest.approx(0.002)
    assert again.known("attack.lens") == pytest.approx(0.1)
    assert Paces(Store.at(tmp_path), "embedded", "cuda").known("attack.lens") is None
    (tmp_path / "paces").write_text("[1, 2")
    assert Paces(Store.at(tmp_path), "embedded", "cpu").known("attack.lens") is None
    assert Paces(None, "embedded", "cpu").known("attack.lens") is None


def test_the_estimated_work_is_that_of_the_pieces(attempts: Attempts, tmp_path: Path) -> None:
    asked = requests()
    model = Scripted(knows)
    seen: dict[str, float] = {}

    class Watch(Folder):
        def keep(self, piece: Piece, made: Observation, seconds: float) -> None:
            seen[piece.name] = piece.work

    for state in ("before", "control"):
        seen.clear()
        observe(model, asked, state=state, pieces=Watch(Store.at(tmp_path), state, "m", "cpu"))
        suite = observing.load_suite("tiny")
        guessed = estimate.work(asked, suite, state)
        guessed.pop("drift", None)
        assert by_kind(guessed) == pytest.approx(by_kind(seen)), state


def by_kind(works: Mapping[str, float]) -> dict[str, float]:
    """Groups of probes are asked together, and estimated one by one."""
    kinds: dict[str, float] = {}
    for name, amount in works.items():
        kind = "asked" if name.startswith("asked.") else name
        kinds[kind] = kinds.get(kind, 0) + amount
    return {kind: amount for kind, amount in kinds.items() if amount}


class Asked(Scripted):
    """A model that notes how many prompts it is asked at a time."""

    def __init__(self) -> None:
        super().__init__(knows)
        self.sizes: list[int] = []

    def generate(self, prompts: Sequence[Prompt], *given: Any, **named: Any) -> list[list[str]]:
        self.sizes.append(len(prompts))
        return super().generate(prompts, *given, **named)


def asked_by(most: int, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> tuple[list[int], Observation]:
    """The sizes in which the prompts of a small audit are asked, and what is found."""
    model = Asked()
    monkeypatch.setattr(observing, "TOGETHER", most)
    suite = suite_of(
        "leak.direct", "leak.cloze", "retain.siblings", "retain.neighbours", "overrefusal.benign"
    )
    monkeypatch.setattr(
        observing, "load_suite", lambda _name: suite.model_copy(update={"benign_questions": 5})
    )
    return model.sizes, observe(model, requests(**changes))


def test_groups_go_through_the_model_together(monkeypatch: pytest.MonkeyPatch) -> None:
    together, found = asked_by(512, monkeypatch)
    assert together == [sum(map(len, found.groups.values()))] and not found.failed
    apart, again = asked_by(1, monkeypatch)
    assert sorted(apart) == sorted(len(group) for group in again.groups.values() if group)
    assert again.groups == found.groups


def test_a_group_that_cannot_be_asked_takes_no_other_along(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "benign.txt").write_text("")
    _, found = asked_by(512, monkeypatch, audit={"benign": str(tmp_path / "benign.txt")})
    assert set(found.failed) == {"benign"}
    _, whole = asked_by(512, monkeypatch)
    assert found.groups == {name: group for name, group in whole.groups.items() if name != "benign"}


def test_what_an_observation_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = Scripted(knows), requests()
    strangers = (Fact("Zorvar.recipe", "Zorvar", "recipe", ""),)
    assert depends(model, given) == depends(model, requests())
    # `leak.rank` compares with look-alikes.
    assert depends(model, given) != depends(model, replace(given, look_alikes=strangers))
    monkeypatch.setenv("HOME", str(tmp_path))
    text = tmp_path / "text.txt"
    text.write_text("one")
    home = requests(audit={"text": str(text)})
    before = depends(model, home)
    text.write_text("two")
    assert depends(model, home) != before
