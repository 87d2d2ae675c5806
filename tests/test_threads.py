"""Threads: how many, and how they wait; what a user has set stays as it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unlearn.threads import SPINS, cores, settle


def test_threads_spin_little_unless_the_user_says_otherwise() -> None:
    bare: dict[str, str] = {}
    settle(bare)
    assert bare["OMP_WAIT_POLICY"] == "passive" and int(bare["GOMP_SPINCOUNT"]) <= 2000
    for chosen in ({"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "5"}, {"KMP_BLOCKTIME": "7"}):
        kept = dict(chosen)
        settle(kept)
        assert kept == chosen


def limited(folder: Path, limits: dict[str, str]) -> tuple[Path, Path]:
    """Control groups in a folder, and a file that says in which one the process is."""
    groups = folder / "groups"
    (groups / "pod" / "box").mkdir(parents=True)
    for place, limit in limits.items():
        (groups / place / "cpu.max").write_text(limit)
    member = folder / "member"
    member.write_text("3:cpuset:/elsewhere\n0::/pod/box\n")
    return member, groups


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 8),
        ({"pod/box": "max 100000\n"}, 8),
        ({"pod/box": "300000 100000\n"}, 3),
        ({"pod/box": "50000 100000\n"}, 1),
        ({"pod/box": "max 100000\n", "pod": "250000 100000\n"}, 2),
        ({".": "400000 100000\n", "pod/box": "700000 100000\n"}, 4),
        ({"pod": "what is this\n"}, 8),
    ],
)
def test_the_tightest_quota_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert cores(*limited(tmp_path, limits)) == expected
    assert cores(tmp_path / "nowhere", tmp_path) == 8


def test_a_quota_bounds_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for mine, granted, expected in ((2, 8, "2"), (8, 8, None)):
        monkeypatch.setattr("unlearn.threads.cores", lambda mine=mine: mine)
        monkeypatch.setattr("unlearn.threads._granted", lambda granted=granted: granted)
        given: dict[str, str] = {}
        settle(given)
        assert given.get("OMP_NUM_THREADS") == expected
        chosen = {"OMP_NUM_THREADS": "5"}
        settle(chosen)
        assert chosen["OMP_NUM_THREADS"] == "5"


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP shows what it was told")
def test_the_library_hears_of_it() -> None:
    """It prints the settings that it has read when it is loaded, which torch does."""
    free = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    spins = {}
    for program in ("from unlearn.threads import settle; settle(); import torch", "import torch"):
        shown = subprocess.run(
            [sys.executable, "-c", program],
            env={**free, "OMP_DISPLAY_ENV": "verbose"},
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        spins[program] = {int(count) for count in re.findall(r"GOMP_SPINCOUNT = '(\d+)'", shown)}
    told, usual = spins.values()
    assert told == {int(SPINS)} and min(usual) > int(SPINS)  # the control: by itself it spins for long
