from pathlib import Path

import pytest

from unlearn.audit import suite
from unlearn.audit.suite import load_suite, some
from unlearn.errors import AuditError
from unlearn.measurements import NAMES, ROWS


@pytest.mark.parametrize("name", ["quick", "standard", "full"])
def test_the_shipped_suites_can_be_read(name: str) -> None:
    found = load_suite(name)
    assert found.name == name and found.makes("leak") and found.makes("retain.siblings")


def test_full_makes_everything_standard_all_but_attacks_and_quick_does_not() -> None:
    plain = {name for name in NAMES if not name.startswith("attack.")}
    # Ways of asking that need phrasings of their own, or several passes per answer, are for a release.
    deep = {"leak.reverse", "leak.two_hop", "leak.negation", "leak.languages"}
    deep |= {row.name for row in ROWS if row.chance == "guess"}
    assert set(load_suite("standard").measurements) == plain - deep
    assert set(load_suite("full").measurements) == set(NAMES)
    assert not load_suite("quick").makes("leak.sampled") and not load_suite("quick").makes("toxicity")


def test_errors_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "shipped", lambda _kind: tmp_path)
    with pytest.raises(AuditError, match="there is no audit suite 'nope'"):
        load_suite("nope")
    (tmp_path / "suites").mkdir()
    path = tmp_path / "suites" / "odd.yaml"
    path.write_text("name: odd\ndescription: x\nmeasurements: [leak.everything]\n")
    with pytest.raises(AuditError, match="leak.everything"):
        load_suite("odd")
    path.write_text("name: odd\nmeasures: []\n")
    with pytest.raises(AuditError, match="odd.yaml"):
        load_suite("odd")


def test_a_selection_keeps_the_order_and_is_the_same_every_time() -> None:
    items = list(range(100))
    chosen = some(items, 10, seed=3)
    assert chosen == sorted(chosen) and len(set(chosen)) == 10
    assert chosen == some(items, 10, seed=3) != some(items, 10, seed=4)
    assert some(items, None, 0) == some(items, 100, 0) == items


def own(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_a_suite_of_ones_own_builds_on_another(tmp_path: Path) -> None:
    path = own(
        tmp_path,
        "extends: quick\ndescription: ours\nadd: [leak.sampled, drift.kl]\nremove: [capability, refusal]\nsamples: 3\n",
    )
    found, quick = load_suite(path), load_suite("quick")
    assert (found.name, found.description, found.samples) == ("mine", "ours", 3)
    assert found.sibling_prompts == quick.sibling_prompts and found.makes("leak.sampled")
    assert not found.makes("capability") and not found.makes("refusal") and quick.makes("refusal")
    assert found.measurements.count("drift.kl") == 1
    again = own(tmp_path, "extends: mine.yaml\nname: ours\nremove: [leak]\n", "next.yml")
    assert (
        load_suite(again).name == "ours"
        and not load_suite(again).makes("leak")
        and load_suite(again).samples == 3
    )
    whole = own(tmp_path, "name: whole\ndescription: x\nmeasurements: [leak.direct]\n", "whole.yaml")
    assert load_suite(whole).measurements == ("leak.direct", "audit.agreement")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: quick\nadd: [leak.smapled]\n", "did you mean `leak.sampled`"),
        ("extends: quick\nremove: [toxicity]\n", "removes what quick does not measure"),
        ("extends: quick\nadd: [attack.prefix]\n", "attack.prefix; it is called `attack.prefill` now"),
        ("extends: full\nremove: [attack.prefix]\n", "attack.prefix; it is called `attack.prefill` now"),
        ("extends: mine.yaml\n", "extends itself"),
        ("extends: nope\n", "no audit suite 'nope'"),
        ("extends: gone.yaml\n", "gone.yaml"),
        ("add: [leak.direct]\nname: x\n", "need `extends`"),
        ("extends: quick\nadd: leak.direct\n", "`add` must be a list"),
        ("extends: [quick]\n", "must be the name or path"),
        ("- leak\n", "no keys and values"),
        ("extends: quick\nsample: 3\n", "sample"),
        ("a: [\n", "mine.yaml:2: not valid YAML"),
        ("extends: full\nrelearn_steps: []\n", "mine.yaml is not one: relearn_steps"),
        ("extends: full\nrelearn_steps: [0, 4]\n", "relearn_steps.0: .*greater than 0"),
        (
            "extends: full\nrelearn_steps: [8, 4]\n",
            "relearn_steps: each number .* larger than the one before",
        ),
        (
            "extends: full\nrelearn_steps: [4, 4]\n",
            "relearn_steps: each number .* larger than the one before",
        ),
        ("extends: full\nsamples: 1000001\n", "samples: expected at most 1,000,000"),
        ("extends: full\nsingular_ranks: [1, 10000000]\n", "singular_ranks: expected at most"),
        (
            "extends: full\nsamples: 99999999999999999999\n",
            "mine.yaml:2: not valid YAML: a number beyond 64 bits",
        ),
        ("extends: &a full\nname: *a\n", "mine.yaml:2: not valid YAML: aliases"),
        ("extends: full\nadd: " + "[" * 9999, "nested too deeply"),
        ("extends: full\nsingular_ranks: []\n", "mine.yaml is not one: singular_ranks"),
        ("extends: full\nsingular_ranks: [1, -2]\n", "singular_ranks.1: .*greater than 0"),
    ],
)
def test_a_wrong_suite_of_ones_own_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(AuditError, match=said):
        load_suite(own(tmp_path, text))
    with pytest.raises(AuditError, match="no audit suite file"):
        load_suite(str(tmp_path / "absent.yaml"))


def test_a_chain_of_suites_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "0.yaml").write_text("extends: quick\n")
    for n in range(1, 30):
        (tmp_path / f"{n}.yaml").write_text(f"extends: {n - 1}.yaml\n")
    assert load_suite(str(tmp_path / "19.yaml")).measurements == load_suite("quick").measurements
    with pytest.raises(AuditError, match="29.yaml extends more than 20 others"):
        load_suite(str(tmp_path / "29.yaml"))
