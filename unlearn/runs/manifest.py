"""The manifest of a run: everything needed to know what its numbers are about, and to notice a changed file."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ValidationError

from unlearn.errors import UnlearnError
from unlearn.files import Json, JsonObject, exists, read_json, sha256_of_file
from unlearn.policy import Policy, listed_in
from unlearn.shown import shown_lines
from unlearn.version import __version__

FORMAT = "unlearn-run-1"
FILE = "manifest.json"
_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "datasets",
    "lm_eval",
    "detoxify",
    "pydantic",
)


def versions() -> dict[str, str]:
    """Return the versions of this program, of Python, and of the libraries that the numbers depend on."""
    found = {"unlearn": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def git_commit() -> JsonObject | None:
    """Return the commit of the checkout that this program runs from; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": dirty}


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def hardware(device: str, dtype: str, products: str) -> JsonObject:
    """Describe the machine.

    Args:
        device: what the model ran on, in words.
        dtype: in which it computed.
        products: in which matrices were multiplied while it was trained, by what this machine is quick in.
    """
    return {
        "device": device,
        "dtype": dtype,
        "products": products,
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
    }


def settings(policy: Policy) -> JsonObject:
    """Return every setting of a run as numbers and names: no subject, prompt, answer or other text of the policy."""
    data = policy.effective()
    return {
        "model": data["model"],
        "tokenizer": data["tokenizer"],
        "method": textless(data["method"]),
        "statistics": data["statistics"],
        "audit": data["audit"],
        "seed": data["seed"],
        "facts": len(policy.facts),
        "relations": sorted(policy.relations),
        "siblings": list(policy.siblings),
        "neighbours": policy.keep.neighbours
        if policy.keep.neighbours == "auto"
        else len(listed_in(policy.keep.neighbours)),
        "held_out_neighbours": len(listed_in(policy.keep.held_out_neighbours)),
        "refusal_sha256": hashlib.sha256("\n".join(policy.targets()).encode()).hexdigest(),
    }


def effective_sha256(policy: Policy) -> str:
    """Return one sha256 over everything that a policy says, overrides and defaults included."""
    return hashlib.sha256(policy.model_dump_json().encode()).hexdigest()


def textless(data: Mapping[str, Json]) -> JsonObject:
    """Return settings or a patch's header with a guard's text by its sha256: it quotes the policy."""
    found = dict(data)
    for key in ("system", "text"):
        if isinstance(found.get(key), str) and found[key] != "auto":
            found[f"{key}_sha256"] = hashlib.sha256(found.pop(key).encode()).hexdigest()
    if isinstance(found.get("method"), Mapping):
        found["method"] = textless(found["method"])
    return found


@dataclass(frozen=True)
class Source:
    """The file that a policy was read from, as it was then: it may change or vanish while a run goes on."""

    file: Path
    sha256: str

    @classmethod
    def of(cls, file: Path) -> Source:
        """Hash a file; raises UnlearnError if it cannot be read."""
        return cls(file, sha256_of_file(file))


TELLING = frozenset({"relations", "facts", "keep", "refusal", "system", "method.text"})
"""Settings that hold text of the policy; their values are not written down."""


def arguments(given: Sequence[str]) -> list[str]:
    """A command line with the values of `--set` that hold text of the policy by their sha256."""
    found: list[str] = []
    for i, word in enumerate(given):
        flag, setting = ("", word) if i and given[i - 1] == "--set" else ("--set=", word[len("--set=") :])
        if flag and not word.startswith(flag):
            found.append(word)
            continue
        key, equals, value = setting.partition("=")
        telling = key.strip().partition(".")[0] in TELLING or key.strip() in TELLING
        if equals and telling and not re.fullmatch(r"[\d.eE+-]+|auto", value.strip()):
            value = f"sha256:{hashlib.sha256(value.encode()).hexdigest()}"
        found.append(f"{flag}{key}{equals}{value}")
    return found


def describe(policy: Policy, source: Source, argv: Sequence[str] = (), **rest: object) -> JsonObject:
    """Build a manifest.

    Args:
        source: where it was read from; the manifest holds its hash, not its text.
        rest: what the run adds (base model, patch, corpus, hardware, times). JSON values.
    """
    return {
        "format": FORMAT,
        "policy": {
            "name": policy.name,
            "file": _text(os.path.abspath(source.file)),
            "sha256": source.sha256,
            "effective_sha256": effective_sha256(policy),
        },
        "settings": settings(policy),
        "versions": versions(),
        "git": git_commit(),
        "argv": ["unlearn", *map(_text, arguments(argv))],
        **rest,
    }


def _text(word: str) -> str:
    """A word of the command line, where bytes that are no letters stand as escapes: JSON cannot hold them."""
    return word.encode(errors="backslashreplace").decode()


def write(folder: Path, manifest: Mapping[str, Json]) -> None:
    """Write `manifest.json`, with the sha256 of every other file of the run directory under `files`."""
    files = {
        path.relative_to(folder).as_posix(): sha256_of_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != FILE
    }
    text = shown_lines(json.dumps({**manifest, "files": files}, indent=2, ensure_ascii=False)) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8")


class _Base(BaseModel):
    name: str


class _Policy(BaseModel):
    sha256: str


class _Needed(BaseModel):
    """What every manifest says, whatever else is in it."""

    policy: _Policy
    base: _Base
    files: dict[str, str]


def is_run(folder: Path) -> bool:
    """Whether a folder has a manifest of this program, however damaged."""
    try:
        return bool(_document(folder))
    except UnlearnError:
        return False


def read(folder: Path) -> JsonObject:
    """Read the manifest of a run directory.

    Raises:
        UnlearnError: if the folder holds none, one that this program did not write, or one that lacks what it wrote.
    """
    manifest = _document(folder)
    try:
        _Needed.model_validate(manifest)
    except ValidationError as problem:
        where = ".".join(map(str, problem.errors()[0]["loc"]))
        raise UnlearnError(
            f"{folder / FILE} is damaged: `{where}` is missing or not what a run writes"
        ) from None
    return manifest


def _document(folder: Path) -> JsonObject:
    path = folder / FILE
    if not exists(path):
        raise UnlearnError(f"{folder} is not a run directory: it has no {FILE}")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UnlearnError(f"{path} was not written by this version of unlearn (expected format {FORMAT})")
    return manifest
