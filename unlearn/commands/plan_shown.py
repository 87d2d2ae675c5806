"""A plan for people: what would be done, and about what it takes, as lines of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from unlearn.files import JsonObject
from unlearn.policy import Policy
from unlearn.shown import shown

if TYPE_CHECKING:
    from unlearn.edit.conflict_report import Conflicts

SHOWN = 40
"""Facts that are listed."""


def table(policy: Policy, found: JsonObject) -> str:
    """The plan for people."""
    lines = [
        f"{policy.name}: {found['method']} on {found['model']} ({found['device']}, {found['dtype']}, "
        f"{found['parameters']:,} parameters)",
        *_reasons(found["reasons"]),
        *_outlook(found, found["device"]),
        f"  kept         {found['siblings']} sibling facts, {found['neighbours_protected']} neighbours; "
        f"{found['neighbours_tested']} more neighbours are only asked by the audit",
        *([f"  named        by the model: {', '.join(found['named'])}"] if "named" in found else []),
        f"  generations  {found['generations']['before_the_edit']} to learn the answers, "
        f"{found['generations']['per_audit']} per audit (before and after)",
        *(f"  not known    {sentence}" for sentence in found.get("needs_weights", ())),
        *_lines_about(found["conflicts"]),
        *_guesses(found["answers"]),
    ]
    if "otherwise" in found:
        lines += ["", f"  or, in its place, {found['otherwise']['method']}:"]
        lines += _reasons(dict(found["otherwise"]["reasons"].items() - found["reasons"].items()))
        lines += _outlook(found["otherwise"], found["device"])
    lines += ["", "  facts and look-up tokens (subject token, last token):"]
    for fact in found["facts"][:SHOWN]:
        lines.append(f"    {fact['id']} ({fact['relation']})")
        for row in fact["prompts"]:
            at, last = row["subject_token"], row["last_token"]
            tokens = f"{at['at']} {at['text']!r}, {last['at']} {last['text']!r}"
            lines.append(f"      {row['form']:<10}{tokens:<30}  {row['prompt']}")
    if len(found["facts"]) > SHOWN:
        lines.append(f"    and {len(found['facts']) - SHOWN:,} more facts (--json lists all)")
    lines += ["", "nothing was written"]
    return "\n".join(map(shown, lines))


def _reasons(found: Mapping[str, str]) -> list[str]:
    return [f"  why {name.replace('_', ' '):<9}{why}" for name, why in found.items()]


def _outlook(found: JsonObject, device: str) -> list[str]:
    """What one method writes, and takes."""
    memory, rate = found["memory_bytes"], found.get("rate")
    return [
        f"  layers       {', '.join(map(str, found['layers'])) or 'none'}"
        + (f"  (of {found['weights'][0]} and its like)" if found["weights"] else ""),
        f"  memory       about {_bytes(memory['device'])} on {device} ("
        + ", ".join(f"{name} {_bytes(count)}" for name, count in memory["steps"].items())
        + f"), {_bytes(memory['host_statistics'])} of statistics on the host",
        f"  disk         {_bytes(found['disk_bytes']['statistics'])} of statistics in the cache",
        "  arithmetic   " + _steps(found["flop"], lambda count: f"{count:.2g} FLOP"),
        f"  time         about {_steps(found['seconds'], _time)}"
        + ("" if rate is None else f", at {rate:.2g} FLOP/s"),
    ]


def _steps(found: dict[str, float], told: Callable[[float], str]) -> str:
    return ", ".join(f"{told(count)} {name.replace('_', ' ')}" for name, count in found.items())


def _time(seconds: float) -> str:
    from unlearn.audit.estimate import spoken

    return f"{seconds:.0f} s" if seconds < 90 else spoken(seconds)


def _lines_about(conflicts: Conflicts | None) -> list[str]:
    from unlearn.edit.conflict_report import lines_of

    return [] if conflicts is None else ["", *(f"  {line}" for line in lines_of(conflicts))]


def _guesses(answers: list[JsonObject]) -> list[str]:
    if not answers:
        return []
    doubtful = sum(row["doubt"] is not None for row in answers)
    head = f"  answers from the model ({len(answers)}, {doubtful} doubtful"
    lines = ["", head + ("; --show-text shows them):" if "text" not in answers[0] else "):")]
    for row in answers:
        text = f"  {' / '.join(row['text'])!r}" if "text" in row else ""
        doubt = f"  doubtful: {row['doubt']}; give the answer of fact {row['id']}" if row["doubt"] else ""
        lines.append(f"    {row['id']}{text}{doubt}")
    return lines


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
