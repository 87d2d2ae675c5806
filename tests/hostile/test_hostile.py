from __future__ import annotations

import faulthandler
import itertools
import random
import re
import sys
from pathlib import Path

import pytest

from tests.files import run
from tests.hostile.calls import every
from tests.hostile.world import OUT, Case, copied, listing, make
from unlearn.shown import shown_lines

CASES = every()
DRAWN = 60
LEAST = 1500
SECONDS = 120
"""After which a command hangs: the stacks are printed, and the tests end."""


def drawn(count: int) -> list[Case]:
    """Some of the cases, the same every time, of all kinds in turns."""
    kinds: dict[str, list[Case]] = {}
    for case in CASES:
        kinds.setdefault(case.kind, []).append(case)
    shuffled = [random.Random(0).sample(cases, len(cases)) for cases in kinds.values()]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*shuffled))
    return list(itertools.islice((case for case in turns if case is not None), count))


QUICK = drawn(DRAWN)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("hostile") / "world")


def test_there_are_enough_and_no_two_are_the_same() -> None:
    assert len({case.id for case in CASES}) == len(CASES) >= LEAST


def test_without_harm_every_command_does_its_work(world: Path, tmp_path: Path) -> None:
    folder = copied(world, tmp_path / "world")
    policy = folder / "policy.yaml"
    assert run("check", policy) == 0
    assert run("verify", folder / "run", "--files-only") == 0
    assert run("report", folder / "run") == 3  # untrained, it cannot have learned to refuse
    assert run("export", folder / "run", folder / OUT, "--quiet") == 0
    assert run("apply", policy, "--onto", folder / "run", "--dry-run", "--quiet") == 0


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow, id=case.id) for case in CASES],
)
def test_a_hostile_input_ends_in_a_sentence(
    case: Case,
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = copied(world, tmp_path / "world")
    words = case.build(folder, case.random)
    monkeypatch.chdir(folder)
    before = listing(folder)
    capsys.readouterr()
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)
    try:
        code = run(*words)
    finally:
        faulthandler.cancel_dump_traceback_later()
    told = capsys.readouterr()
    assert code in ((0, 1, 2, 3) if case.passes else (1, 2, 3)), told
    for said in (told.out, told.err):
        assert "Traceback" not in said and "please report it" not in said, said
        assert shown_lines(said) == said
    if code in (1, 2):
        assert one_sentence(told.err), told.err
        assert listing(folder) == before
    assert not Path("/tmp/unlearn-was-here").exists()


PROBLEM = re.compile(r".+:\d+ .* .+|--set .*  .+|\d+ problems?, nothing was loaded\.")


def one_sentence(said: str) -> bool:
    """Whether an error is one line, or the table of a policy's problems, of lines that a screen bears."""
    lines = said.splitlines()
    if not lines or max(map(len, lines)) > 1500:
        return False
    plain = [line for line in lines if not line.startswith("unlearn: warning: ")]
    if len(plain) == 1:
        return plain[0].startswith("unlearn: ")
    return all(PROBLEM.fullmatch(line) for line in plain)
