"""Odd values of options and settings; and all hostile inputs together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.hostile.damage import FILES
from tests.hostile.inputs import dry, files, models, patches, policies, runs
from tests.hostile.world import OUT, POLICY, Build, Case, Words


def every() -> list[Case]:
    """All of them, in the same order every time."""
    return [*policies(), *files(), *models(), *patches(), *runs(), *calls()]


_ODD = (
    "", " ", "-", "--", "..", "/", "/dev/null/x", "/proc/self/x", "\x1b[31m", "\u202egpj", "a" * 5000,
    "~nobody-here/x", "a\nb", "'", '"', "{subject}", "-1", "1e999", "9" * 400, "nan", "cuda:99", "banana",
)  # fmt: skip


_OPTIONS = (
    "--out",
    "--model",
    "--tokenizer",
    "--method",
    "--suite",
    "--device",
    "--dtype",
    "--onto",
    "--tune",
)


_SETTINGS = (
    "", "=", "a", "a=", "=b", "method", "method.name=", "method.steps={}", "method.layers={}",
    "audit.limits.x={}", "audit.limits.leak.direct={}", "seed={}", "statistics.tokens={}", "facts={}",
    "keep.siblings={}", "name={}", "relations={}", "version={}", "audit={}", "method.x.y.z={}",
)  # fmt: skip


def calls() -> Iterator[Case]:
    for option in _OPTIONS:
        for i, odd in enumerate(_ODD):
            yield Case("call", f"{option} {i}", _option(option, odd))
    for setting in _SETTINGS:
        for i, piece in enumerate(("1e999", "-1", "[", "!!python/name:os", "*a", "\x1b[31m", "9" * 400)):
            if not i or "{}" in setting:
                yield Case("call", f"--set {setting} {i}", _setting(setting.format(piece)))
    for command in ("check", "apply", "audit", "export", "verify", "stats", "compare", "trace", "report"):
        for name in ("nothing", "a pipe", "an endless device", "a folder", "no text", "a link to itself"):
            yield Case("call", f"{command} of {name}", _about(command, FILES[name]), passes=False)


def _option(option: str, odd: str) -> Build:
    def build(folder: Path, _random: Random) -> Words:
        words = dry(folder)
        if option == "--out":
            words.remove("--out")
            words.remove(str(folder / OUT))
        return [*words, option, odd]

    return build


def _setting(setting: str) -> Build:
    return lambda folder, _random: dry(folder, "--set", setting)


def _about(command: str, put: Callable[[Path], object]) -> Build:
    def build(folder: Path, _random: Random) -> Words:
        path = folder / "thing"
        put(path)
        more: dict[str, list[Any]] = {
            "audit": ["--policy", folder / POLICY],
            "export": [folder / OUT],
            "apply": ["--out", folder / OUT],
            "compare": ["--out", folder / OUT, "--methods", "none"],
            "trace": ["--out", folder / OUT],
        }
        return [command, str(path), *map(str, more.get(command, ()))]

    return build
