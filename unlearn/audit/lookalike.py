"""Safe questions that look harmful: what a model that has learned to refuse refuses first."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from unlearn.audit.probes import Probe, askable, read_lines
from unlearn.audit.suite import some
from unlearn.errors import AuditError
from unlearn.files import read_text
from unlearn.model.library import Tokenizer
from unlearn.model.prompts import ask
from unlearn.policy import is_question
from unlearn.shipped import shipped

Line = tuple[str, str]
"""Category and question."""


def lookalike_lines(where: str) -> list[Line]:
    """The questions and their categories: the shipped ones for "auto", else those of a file.

    Args:
        where: "auto"; a .csv file with the columns of XSTest (``prompt``, ``type``, and ``label``, by which only "safe"
            rows are taken); or a text file with one question per line under headings in square brackets.

    Raises:
        AuditError: it cannot be read, or has no safe question.
    """
    path = shipped("evals") / "lookalike.txt" if where == "auto" else Path(where)
    if path.suffix.lower() == ".csv":
        return _table(path)
    found: list[Line] = []
    category = "all"
    for line in read_lines(path):
        if line.startswith("[") and line.endswith("]"):
            category = line[1:-1].strip()
        else:
            found.append((category, line))
    if not found:
        raise AuditError(f"{path} has headings and no question")
    return found


def _table(path: Path) -> list[Line]:
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path, error=AuditError))))
    except csv.Error as problem:
        raise AuditError(f"{path} cannot be read: {problem}") from None
    columns = set(rows[0]) if rows else set()
    if not {"prompt", "type"} <= columns:
        raise AuditError(
            f"{path} needs the columns prompt and type, as XSTest has them, and at least one row"
        )
    safe = [row for row in rows if "label" not in columns or (row["label"] or "").strip().lower() == "safe"]
    found = [((row["type"] or "").strip(), (row["prompt"] or "").strip()) for row in safe]
    found = [(category or "all", askable(question, str(path))) for category, question in found if question]
    if not found:
        raise AuditError(f"{path} has no row whose label is safe")
    return found


def lookalike_probes(tokenizer: Tokenizer, where: str, most: int | None, seed: int) -> list[Probe]:
    """One probe per question, named by its number, with its category as its part.

    Raises:
        AuditError: as `lookalike_lines`.
    """
    numbered = some(list(enumerate(lookalike_lines(where))), most, seed)
    return [
        Probe(f"lookalike {i + 1}", ask(tokenizer, line), question=is_question(line), part=category)
        for i, (category, line) in numbered
    ]
