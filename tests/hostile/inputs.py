"""The hostile inputs: policies, files that policies name, models, patches, runs, and command lines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import yaml

from tests.hostile.damage import FILES, bytes_changed, tree_changed
from tests.hostile.world import MODEL, OUT, POLICY, RUN, Build, Case, Words
from tests.model import broken, broken_weights

IN_A_RUN = ("manifest.json", "report.json", "report.html", "report.md", "junit.xml", "model-card.md", "log.txt",
            "patch.safetensors")  # fmt: skip
OF_A_MODEL = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja",
              "model.safetensors")  # fmt: skip
NAMED: dict[str, tuple[str, ...]] = {
    "corpus": ("statistics", "corpus"),
    "text": ("audit", "text"),
    "benign": ("audit", "benign"),
    "lookalike": ("audit", "lookalike"),
    "suite": ("audit", "suite"),
    "toxicity": ("audit", "toxicity"),
    "control": ("audit", "control"),
    "model": ("model",),
}
"""Keys of a policy that name a file or a folder."""


def dry(folder: Path, *more: str | Path) -> Words:
    """A dry run: it reads the policy, the model, and an earlier patch."""
    out = ["--out", str(folder / OUT), "--quiet"]
    return ["apply", str(folder / POLICY), "--dry-run", *out, *map(str, more)]


def checked(folder: Path) -> Words:
    return ["check", str(folder / POLICY)]


# Policies


def policies() -> Iterator[Case]:
    for i in range(320):
        yield Case("policy", f"bytes {i}", _policy_bytes)
        yield Case("policy", f"tree {i}", _policy_tree)
    for name, put in FILES.items():
        yield Case("policy", name, _put(POLICY, put, checked), passes=False)


def _policy_bytes(folder: Path, random: Random) -> Words:
    path = folder / POLICY
    path.write_bytes(bytes_changed(path.read_bytes(), random))
    return checked(folder)


def _policy_tree(folder: Path, random: Random) -> Words:
    path = folder / POLICY
    tree = tree_changed(yaml.safe_load(path.read_text()), random)
    path.write_text(yaml.safe_dump(tree, allow_unicode=True))
    return checked(folder)


def _put(file: str, put: Callable[[Path], object], words: Callable[[Path], Words]) -> Build:
    """What lies in a file's place."""

    def build(folder: Path, _random: Random) -> Words:
        path = folder / file
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        put(path)
        return words(folder)

    return build


# Files that a policy names


def files() -> Iterator[Case]:
    for key, loc in NAMED.items():
        for name, put in FILES.items():
            yield Case("named file", f"{key}: {name}", _named(loc, put))


def _named(loc: tuple[str, ...], put: Callable[[Path], object]) -> Build:
    def build(folder: Path, _random: Random) -> Words:
        put(folder / "thing.txt")
        path = folder / POLICY
        tree = yaml.safe_load(path.read_text())
        inside = tree
        for key in loc[:-1]:
            inside = inside[key]
        inside[loc[-1]] = "thing.txt"
        if loc[0] == "audit" and loc[-1] != "suite":
            inside["suite"] = "wide.yaml"
        path.write_text(yaml.safe_dump(tree))
        return ["apply", str(path), "--out", str(folder / OUT), "--quiet"]

    return build


# Models


def models() -> Iterator[Case]:
    tables = {
        "configuration": broken.CONFIGS,
        "weights": broken_weights.CHECKPOINTS,
        "tokenizer": broken.TOKENIZERS,
        "other": broken.OTHERS,
    }
    for table, rows in tables.items():
        for name, (damage, _) in rows.items():
            # A folder without weights can be planned for.
            yield Case("model", f"{table}: {name}", _broken(damage), passes=name == "no weights")
    for file in OF_A_MODEL:
        for i in range(45 if file != "model.safetensors" else 60):
            yield Case("model", f"{file}, bytes {i}", _model_bytes(file))
        if file.endswith(".json"):
            for i in range(30):
                yield Case("model", f"{file}, tree {i}", _model_tree(file))


def _broken(damage: Callable[[Path], object]) -> Build:
    def build(folder: Path, _random: Random) -> Words:
        damage(folder / MODEL)
        return dry(folder)

    return build


def _model_bytes(file: str) -> Build:
    def build(folder: Path, random: Random) -> Words:
        path = folder / MODEL / file
        raw = path.read_bytes()
        # Of weights, the header: it says what the rest means.
        head = 3000 if file == "model.safetensors" else len(raw)
        path.write_bytes(bytes_changed(raw[:head], random) + raw[head:])
        return dry(folder)

    return build


def _model_tree(file: str) -> Build:
    def build(folder: Path, random: Random) -> Words:
        path = folder / MODEL / file
        path.write_text(json.dumps(tree_changed(json.loads(path.read_text()), random)))
        return dry(folder)

    return build


# Patches


def patches() -> Iterator[Case]:
    for i in range(90):
        yield Case("patch", f"bytes {i}", _patch_bytes)
    for name, put in FILES.items():
        yield Case("patch", name, _put("patch.safetensors", put, _onto), passes=False)


def _onto(folder: Path) -> Words:
    return dry(folder, "--onto", folder / "patch.safetensors")


def _patch_bytes(folder: Path, random: Random) -> Words:
    raw = (folder / RUN / "patch.safetensors").read_bytes()
    (folder / "patch.safetensors").write_bytes(bytes_changed(raw[:2500], random) + raw[2500:])
    return _onto(folder)


# Runs


def runs() -> Iterator[Case]:
    for file in IN_A_RUN:
        for i in range(20):
            yield Case("run", f"{file}, bytes {i}", _run_bytes(file), passes=False)
        for name, put in FILES.items():
            yield Case(
                "run", f"{file}: {name}", _put(f"{RUN}/{file}", put, _reader(file, name)), passes=False
            )
    for file in ("manifest.json", "report.json"):
        for i in range(60):
            yield Case("run", f"{file}, tree {i}", _run_tree(file), passes=False)


def _reader(file: str, name: str) -> Callable[[Path], Words]:
    """One of the commands that read a run, the same for the same input."""
    return lambda folder: _read(folder, Random(f"{file}{name}"))


def _read(folder: Path, random: Random) -> Words:
    run, policy, out = str(folder / RUN), str(folder / POLICY), str(folder / OUT)
    words: tuple[Words, ...] = (
        ["verify", run, "--files-only"],
        ["verify", run, "--files-only", "--json"],
        ["report", run],
        ["report", run, "--as", "json"],
        ["export", run, out, "--quiet"],
        ["audit", run, "--policy", policy, "--quiet"],
        ["apply", policy, "--onto", run, "--dry-run", "--quiet", "--out", out],
    )
    return random.choice(words)


def _run_bytes(file: str) -> Build:
    def build(folder: Path, random: Random) -> Words:
        path = folder / RUN / file
        raw = path.read_bytes()
        while (made := bytes_changed(raw, random)) == raw:
            pass
        path.write_bytes(made)
        return _read(folder, random)

    return build


def _run_tree(file: str) -> Build:
    def build(folder: Path, random: Random) -> Words:
        path = folder / RUN / file
        tree = json.loads(path.read_text())
        while (made := tree_changed(tree, random)) == tree:
            pass
        path.write_text(json.dumps(made, indent=2))
        return _read(folder, random)

    return build


# Command lines
