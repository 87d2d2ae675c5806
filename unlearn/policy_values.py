"""The single values of a policy, each right or wrong by itself: texts, templates, names, limits."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import AfterValidator, StringConstraints
from pydantic_core import PydanticCustomError

SUITES = ("quick", "standard", "full")
"""The audit suites that ship with unlearn."""


def _one_subject(template: str) -> str:
    found = template.count("{subject}")
    if found != 1:
        raise PydanticCustomError("template", f"needs exactly one {{subject}}, has {found}")
    if template.replace("{subject}", "").strip() == "":
        raise PydanticCustomError("template", "needs words besides {subject}")
    return template


def _one_answer(template: str) -> str:
    found = template.count("{answer}")
    if found != 1:
        raise PydanticCustomError("template", f"needs exactly one {{answer}}, has {found}")
    if "{subject}" in template:
        raise PydanticCustomError("template", "a reverse prompt must not name the {subject}: it asks for it")
    if template.replace("{answer}", "").strip() == "":
        raise PydanticCustomError("template", "needs words besides {answer}")
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


Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
FolderName = Annotated[Name, StringConstraints(max_length=100)]
Template = Annotated[Text, AfterValidator(_one_subject)]
ReverseTemplate = Annotated[Text, AfterValidator(_one_answer)]
Limit = Annotated[float, AfterValidator(_finite)]
SuiteName = Annotated[Text, AfterValidator(_suite)]
