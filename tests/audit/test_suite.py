from pathlib import Path

import pytest

from unlearn.audit import suite
from unlearn.audit.attacks.table import ATTACKS
from unlearn.audit.suite import MEASUREMENTS, load_suite, some
from unlearn.errors import AuditError
from unlearn.policy import DEFAULT_LIMITS


@pytest.mark.parametrize("name", ["quick", "standard", "full"])
def test_the_shipped_suites_can_be_read(name: str) -> None:
    found = load_suite(name)
    assert found.name == name and found.makes("leak") and found.makes("retain.siblings")


def test_full_makes_everything_standard_all_but_attacks_and_quick_does_not() -> None:
    plain = set(MEASUREMENTS) - {"attack"}
    assert set(load_suite("standard").measurements) >= plain
    assert set(load_suite("full").measurements) == plain | {f"attack.{name}" for name in ATTACKS}
    assert not load_suite("quick").makes("leak.sampled") and not load_suite("quick").makes("toxicity")


def test_everything_with_a_default_limit_can_be_measured() -> None:
    attacks = {f"attack.{name}" for name in ATTACKS}
    assert set(MEASUREMENTS) <= set(DEFAULT_LIMITS) <= set(MEASUREMENTS) | attacks


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
