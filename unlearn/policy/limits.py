"""The limits that a policy may set, as JSON Schema: every measurement by its name, with what it is."""

from __future__ import annotations

import math
import re

from pydantic.config import JsonDict

from unlearn.measurements import FAMILIES, ROWS, Family, Row


def limits_schema() -> JsonDict:
    """What a policy's `audit.limits` may hold: keys with their range, default and definition."""
    known: JsonDict = {}
    for family in FAMILIES.values():
        if family.limit is not None:
            known[family.name] = _number(family, f"All measurements of {family.name}.", family.limit)
        for row in ROWS:
            if row.family == family.name and row.suite:
                known[row.name] = _number(family, _said(row, family), row.limit)
    several = {f"^{re.escape(name)}\\.": _number(f, "") for name, f in FAMILIES.items() if f.several}
    return {"properties": known, "patternProperties": {**several}, "additionalProperties": False}


def _number(family: Family, description: str, default: float | None = None) -> JsonDict:
    found: JsonDict = {"type": "number", "minimum": family.low}
    if math.isfinite(family.high):
        found["maximum"] = family.high
    if description:
        found["description"] = f"{description} The limit: {family.rule}."
    if default is not None:
        found["default"] = default
    return found


def _said(row: Row, family: Family) -> str:
    return row.definition.format(name=family.several)
