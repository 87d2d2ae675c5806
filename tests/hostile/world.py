"""What the hostile inputs are made from: a small world that is in order, and what was done to a copy of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.files import corpus_file, model_folder, pico_policy, run

POLICY, CORPUS, MODEL, RUN, OUT = "policy.yaml", "corpus.jsonl", "model", "run", "out"
METHOD = "method: {name: alphaedit, steps: 2, layers: [1, 2], hard_negatives: 0, target_probability: null}"
SUITE = """extends: quick
description: the least that is an audit
remove: [capability, retain, overrefusal]
max_new_tokens: 4
text_tokens: 64
leakage_tokens: 64
"""
WIDE = """extends: standard
description: everything that reads a file of its own, as little as can be
remove: [leak.sampled, capability]
max_new_tokens: 2
sibling_prompts: 1
neighbour_prompts: 1
benign_questions: 1
lookalike_questions: 1
generation_prompts: 1
generation_tokens: 2
text_tokens: 64
leakage_tokens: 64
"""

Words = list[str]
Build = Callable[[Path, Random], Words]
"""Harms a copy of the world, and returns the words of the command that meets it."""


@dataclass(frozen=True)
class Case:
    """One hostile input."""

    kind: str
    name: str
    build: Build
    passes: bool = True
    """Whether exit code 0 is a right answer as well: a change may leave the input in order."""

    @property
    def id(self) -> str:
        """As pytest names it."""
        return f"{self.kind}: {self.name}"

    @property
    def random(self) -> Random:
        """Its own, so that a case is the same whichever others are drawn."""
        return Random(self.id)


def make(folder: Path) -> Path:
    """A pico model, a corpus, a policy, and a run of it."""
    model_folder(folder / MODEL)
    corpus_file(folder / CORPUS, lines=30)
    (folder / "suite.yaml").write_text(SUITE)
    (folder / "wide.yaml").write_text(WIDE)
    audit = "audit: {suite: suite.yaml, text: corpus.jsonl}"
    text = pico_policy(Path(MODEL), Path(CORPUS), method=METHOD, audit=audit)
    (folder / POLICY).write_text(text)
    assert run("apply", folder / POLICY, "--out", folder / RUN, "--quiet") in (0, 3)
    return folder


def copied(world: Path, folder: Path) -> Path:
    """A copy of the world; the run's policy stays the one that it was made with."""
    return Path(shutil.copytree(world, folder, symlinks=True))


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every name below a folder with its kind and size; nothing is opened or followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = os.lstat(path)
        found[path.relative_to(folder).as_posix()] = (info.st_mode, info.st_size)
    return found
