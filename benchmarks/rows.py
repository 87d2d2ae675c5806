"""The rows of a measurement in a file: written as they come, and never measured twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlearn.errors import UnlearnError

Row = dict[str, Any]


class Rows:
    """Rows in memory and, if a path is given, in a file that is whole at any time.

    A file called .jsonl has one object a line; any other is one JSON list.
    """

    def __init__(self, path: Path | None) -> None:
        """Read the rows that are there already; raises UnlearnError if the file is something else."""
        self.path = path
        self.rows: list[Row] = []
        if path is None or not path.exists():
            return
        try:
            text = path.read_text(encoding="utf-8")
            lines = (
                [json.loads(line) for line in text.splitlines() if line.strip()]
                if self._lines
                else json.loads(text)
            )
        except (OSError, ValueError) as problem:
            raise UnlearnError(
                f"--json {path}: holds something else than rows of a benchmark: {problem}"
            ) from None
        if not isinstance(lines, list) or not all(isinstance(row, dict) for row in lines):
            raise UnlearnError(
                f"--json {path}: holds something else than rows of a benchmark; name another file"
            )
        self.rows = lines

    @property
    def _lines(self) -> bool:
        return self.path is not None and self.path.suffix == ".jsonl"

    def add(self, row: Row) -> None:
        """Add a row and put the file in order."""
        self.rows.append(row)
        if self.path is None:
            return
        body = [json.dumps(row, ensure_ascii=False) for row in self.rows]
        text = "\n".join(body) + "\n" if self._lines else "[\n" + ",\n".join(body) + "\n]\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        spare = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        spare.write_text(text, encoding="utf-8")
        spare.replace(self.path)

    def find(self, key: str, edits: int) -> Row | None:
        """The row of a run at a number of edits, if it is there."""
        return next((row for row in self.rows if row.get("run") == key and row.get("edits") == edits), None)


def key_of(run: Mapping[str, Any]) -> str:
    """A short hash of everything that a run's numbers depend on."""
    return hashlib.sha256(json.dumps(run, sort_keys=True, default=str).encode()).hexdigest()[:16]
