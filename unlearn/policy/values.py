"""The single values of a policy, each right or wrong by itself: texts, templates, names, limits."""

from __future__ import annotations

import math
import re
import unicodedata
from functools import partial
from pathlib import PurePath
from typing import Annotated

from pydantic import AfterValidator, StringConstraints
from pydantic_core import PydanticCustomError

SUITES = ("quick", "standard", "full")
"""The audit suites that ship with unlearn."""

UNSEEN = frozenset("\u00ad\u200b\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff")
"""Soft hyphen, zero-width space, marks of direction and the like; not the joiners, which change what is seen in some
scripts."""


_PADDING = "".join(UNSEEN) + "".join(c for c in map(chr, range(0x3001)) if c.isspace())


def unpadded(text: str) -> str:
    """A text without white space and `UNSEEN` characters at its ends."""
    return text.strip(_PADDING)


def _not_padded(text: str) -> str:
    bare = unpadded(text)
    if bare == text:
        return text
    end, verb = (text[-1], "ends in") if text[-1] != bare[-1:] else (text[0], "begins with")
    if end in "\r\n":
        said = "a line break; take it away (YAML's `|` and `>` add one, `|-` and `>-` do not)"
    elif end in UNSEEN:
        name = f"U+{ord(end):04X} {unicodedata.name(end).lower()}"
        said = f"an invisible character ({name}); take it away, for the model would read it"
    else:
        said = "white space; take it away, for the model would read it"
    raise PydanticCustomError("padded", "{said}", {"said": f"{verb} {said}"})


def _one(slot: str, template: str) -> str:
    found = template.count(slot)
    if found != 1:
        raise PydanticCustomError("template", f"needs exactly one {slot}, has {found}")
    if template.replace(slot, "").strip() == "":
        raise PydanticCustomError("template", f"needs words besides {slot}")
    return template


def _without_subject(template: str) -> str:
    if "{subject}" in template:
        raise PydanticCustomError("template", "a reverse prompt must not name the {subject}: it asks for it")
    return template


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise PydanticCustomError("finite", "expected a finite number")
    return value


def _suite(name: str) -> str:
    if name not in SUITES and not name.endswith((".yaml", ".yml")):
        expected = ", ".join(f"`{suite}`" for suite in SUITES)
        raise PydanticCustomError("suite", f"expected {expected}, or the path of a suite's YAML file")
    return name


def is_task_file(task: str) -> bool:
    """Say whether an entry of `audit.tasks` is the path of a task's file, and not a name."""
    return task.endswith((".yaml", ".yml"))


def task_name(task: str) -> str:
    """Return what a task is called in limits and reports: its name, or that of its file without ending."""
    return PurePath(task).stem if is_task_file(task) else task


def _task(task: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", task_name(task)):
        raise PydanticCustomError("task", "expected a task's name, or the path of its YAML file")
    return task


Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S"), AfterValidator(_not_padded)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
FolderName = Annotated[Name, StringConstraints(max_length=100)]
Template = Annotated[Text, AfterValidator(partial(_one, "{subject}"))]
ReverseTemplate = Annotated[Text, AfterValidator(partial(_one, "{answer}")), AfterValidator(_without_subject)]
Limit = Annotated[float, AfterValidator(_finite)]
SuiteName = Annotated[Text, AfterValidator(_suite)]
TaskName = Annotated[Text, AfterValidator(_task)]
