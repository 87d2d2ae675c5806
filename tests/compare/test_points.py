"""A point of `unlearn compare`: what it is judged by, what it is about, and what names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.files import THREE, corpus_file, model_folder, pico_policy, run
from unlearn.audit.compared import Compared
from unlearn.audit.observation import Observation
from unlearn.compare import points as pointing
from unlearn.compare.document import OLDEST, Comparison, Point
from unlearn.compare.points import Series, ordered, split
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Fact, Requests
from unlearn.order import Means
from unlearn.patch import Patch
from unlearn.policy import PromptVariants
from unlearn.policy.file import load_policy
from unlearn.store import Store


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pico model, a corpus, and a policy of three facts."""
    folder = tmp_path_factory.mktemp("points")
    model, corpus = model_folder(folder / "model"), corpus_file(folder / "corpus.jsonl")
    (folder / "policy.yaml").write_text(pico_policy(model, corpus, facts=THREE))
    return folder


def test_a_point_is_judged_as_apply_judges_and_on_the_facts_so_far(place: Path, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text("extends: quick\nadd: [leak.choice, attack.int8]\n")
    given = [f"audit.suite={tmp_path / 'suite.yaml'}", "audit.judge=strict"]
    settings = [part for setting in given for part in ("--set", setting)]
    arguments = ("compare", place / "policy.yaml", "--methods", "none", "--steps", "2", *settings)
    assert run(*arguments, "--out", tmp_path / "out") == 0
    for point in json.loads((tmp_path / "out" / "compare.json").read_text())["points"]:
        measured = {m["name"]: m for m in point["measurements"]}
        assert {m["judged"] for m in measured.values() if m["after"] is not None} == {"strict"}
        assert measured["drift.hidden"]["limit"] == 0.25 and measured["drift.hidden"]["passed"]
        # A model that knows nothing chooses no better than by chance: not measured, and so a limit that is missed.
        assert measured["leak.choice"]["limit"] is None and measured["leak.choice"]["passed"] is False
        verdicts = [m["passed"] for n, m in measured.items() if n not in OLDEST and m["passed"] is not None]
        assert point["judged"] == [sum(verdicts), len(verdicts)]
        assert f"0 of {2 * point['edits']})" in measured["attack.int8"]["reason"]


def test_what_only_the_edit_looks_at_is_part_of_a_points_key(place: Path, tmp_path: Path) -> None:
    given = load_policy(place / "policy.yaml")
    model = EditableModel.load(given.model)
    requests = Requests(given, (), (), (), ())

    def key(asked: Requests) -> str:
        compared = Compared(Observation(suite="quick"), None)
        about = Series(model, asked, Means(), compared, 1, Store.at(tmp_path / "points")).about
        return pointing._key(about, given, None, [["fact0"]])

    def refusing(*texts: str) -> Requests:
        facts = [f.model_copy(update={"refusal": text}) for f, text in zip(given.facts, texts, strict=True)]
        return requests.under(facts=tuple(facts))

    one, other = refusing("No.", "No.", "Never."), refusing("No.", "Never.", "Never.")
    assert one.policy.targets() == other.policy.targets()
    keys = [
        key(asked)
        for asked in (requests, one, other, requests.under(prompt_variants=PromptVariants(templates=1)))
    ]
    assert len(set(keys)) == 4
    assert key(requests.under(name="another")) == keys[0]


def test_a_point_or_a_patch_that_was_changed_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finished, patch = Store.at(tmp_path / "points"), tmp_path / "a.safetensors"
    point = Point(
        method="none", seed=0, step=1, edits=3, measurements=(), judged=(0, 0), layers=(), from_scratch=True,
        seconds=1.0, patch="a.safetensors",
    )  # fmt: skip
    patch.write_bytes(b"a patch")
    pointing._keep(finished, "a", patch, point)
    assert pointing._kept(finished, "a", patch) == point and not caplog.text
    for edited, before, after in (
        (patch, b"a patch", b"another"),
        (tmp_path / "points" / "a", b'"edits": 3', b'"edits": 4'),
    ):
        whole = edited.read_bytes()
        edited.write_bytes(whole.replace(before, after))
        assert pointing._kept(finished, "a", patch) is None
        assert "is made anew" in caplog.text
        caplog.clear()
        edited.write_bytes(whole)
        assert pointing._kept(finished, "a", patch) == point
    patch.unlink()
    assert pointing._kept(finished, "a", patch) is None


def test_steps_of_a_trained_update_count_the_facts_of_their_step(place: Path, tmp_path: Path) -> None:
    method = "null_space_tuning:steps=2:layers=[1]"
    given = ("compare", place / "policy.yaml", "--methods", method, "--steps", "2", "-q")
    assert run(*given, "--out", tmp_path / "out") == 0
    made = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [(point["step"], point["from_scratch"]) for point in made["points"]] == [(1, True), (2, True)]
    headers = [Patch.load(tmp_path / "out" / point["patch"]).header for point in made["points"]]
    assert [len(header["values"]) for header in headers] == [point["edits"] for point in made["points"]]


def test_the_oldest_edits_stay_where_earlier_keys_do_and_fall_where_nothing_keeps_them(
    place: Path, tmp_path: Path
) -> None:
    (tmp_path / "suite.yaml").write_text(
        "name: few\ndescription: few\nmeasurements: [leak.direct, refusal.direct, drift.norm_growth, drift.hidden]\n"
        "max_new_tokens: 24\n"
    )
    keeping, forgetting = "alphaedit:steps=30", "memit:steps=30:ridge=1e-6"
    given = ("compare", place / "policy.yaml", "--set", f"audit.suite={tmp_path / 'suite.yaml'}", "-q")
    asked = ("--methods", f"{keeping},{forgetting},none", "--steps", "3", "--out", tmp_path / "out")
    assert run(*given, *asked) == 0
    found = Comparison.model_validate_json((tmp_path / "out" / "compare.json").read_bytes())

    def curve(method: str, name: str) -> list[float | None]:
        return [found.at(method, edits)[0].value(name) for edits in (1, 2, 3)]

    assert curve(keeping, "refusal.oldest") == [1.0, 1.0, 1.0]
    assert curve(forgetting, "refusal.oldest") == [1.0, 1.0, 0.0]
    assert curve("none", "refusal.oldest") == [0.0] * 3 and curve("none", "leak.oldest") == [1.0] * 3
    first = {m.name: m for m in found.at(forgetting, 1)[0].measurements}
    for name, whole in OLDEST.items():  # all facts so far are the oldest then
        assert (first[name].after, first[name].n) == (first[whole].after, first[whole].n)
    last = {m.name: m for m in found.at(forgetting, 3)[0].measurements}
    assert last["refusal.direct"].after == pytest.approx(2 / 3)  # what the newer facts hide
    page, drawn = ((tmp_path / "out" / name).read_text() for name in ("compare.md", "curves.svg"))
    for title in ("Refusal, oldest edits", "Leak, oldest edits", "Weight-norm growth", "Hidden-state drift"):
        assert title in drawn and f"| {title} |" in page
    assert "- `refusal.oldest`: Share of" in page and "Of the facts of the first step alone." in page


def test_one_step_has_no_oldest_edits(place: Path, tmp_path: Path) -> None:
    assert run("compare", place / "policy.yaml", "--methods", "none", "--out", tmp_path / "out", "-q") == 0
    for name in ("compare.md", "curves.svg", "compare.json"):
        written = (tmp_path / "out" / name).read_text()
        assert not any(word in written for word in (*OLDEST, "oldest edits"))


def test_splitting_and_ordering() -> None:
    facts = [Fact(str(i), str(i), "r", "a") for i in range(7)]
    assert [len(batch) for batch in split(facts, 3)] == [2, 2, 3]
    assert [len(batch) for batch in split(facts, 99)] == [1] * 7
    assert [fact for batch in split(facts, 3) for fact in batch] == facts
    assert ordered(facts, None) == facts
    assert ordered(facts, 1) == ordered(facts, 1) != ordered(facts, 2)
    assert sorted(ordered(facts, 1), key=lambda f: f.id) == facts
