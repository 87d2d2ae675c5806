"""What keeps the code readable: no long file, no long function, and few values of any type."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FILE, LONGEST_FUNCTION, MOST_ANY = 300, 60, 60


def modules(*rooms: str) -> Iterator[Path]:
    for room in rooms:
        yield from sorted((ROOT / room).rglob("*.py"))


def long_functions(text: str) -> list[str]:
    """Names and lengths of functions beyond the limit, signature and docstring included."""
    lengths = {
        node.name: (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return [f"{name}: {length}" for name, length in lengths.items() if length > LONGEST_FUNCTION]


def uses_of_any(text: str) -> int:
    """How often `Any` stands for a type."""
    return sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(ast.parse(text)))


@pytest.mark.parametrize("room", ["unlearn", "benchmarks", "tools", "examples", "tests"])
def test_no_file_is_longer_than_a_reader_takes_in(room: str) -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules(room)}
    assert {path: lines for path, lines in long.items() if lines > LONGEST_FILE} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    found = {
        str(path.relative_to(ROOT)): long_functions(path.read_text())
        for path in modules("unlearn", "tools", "benchmarks")
    }
    assert {path: functions for path, functions in found.items() if functions} == {}


def test_few_values_are_of_any_type() -> None:
    assert sum(uses_of_any(path.read_text()) for path in modules("unlearn")) <= MOST_ANY


def test_the_measures_see_what_is_too_long() -> None:
    assert long_functions("def f():\n" + "    pass\n" * LONGEST_FUNCTION) == ["f: 61"]
    assert long_functions("def f():\n" + "    pass\n" * (LONGEST_FUNCTION - 1)) == []
    assert uses_of_any("from typing import Any\nx: Any = 1\ny: dict[str, Any] = {}\n") == 2


def test_the_way_from_the_paper_to_the_code_leads_somewhere() -> None:
    table = (ROOT / "docs" / "equation.md").read_text().partition("## From a sentence")[2]
    ways = re.findall(r"`(\w+)` in\s`(unlearn/[\w/]+\.py)`", table)
    assert len(ways) == 12
    for name, path in ways:
        assert re.search(rf"^\s*(?:def|class) {name}\b|^\s*{name} = ", (ROOT / path).read_text(), re.M), name


def below_its_start(text: str) -> list[str]:
    """What a program defines only after it has been started."""
    body = ast.parse(text).body
    starts = [
        i for i, node in enumerate(body) if isinstance(node, ast.If) and "__main__" in ast.dump(node.test)
    ]
    return [ast.unparse(node).splitlines()[0] for node in body[starts[0] + 1 :]] if starts else []


def test_a_program_starts_when_all_of_it_is_defined() -> None:
    paths = modules("unlearn", "tools", "benchmarks", "examples")
    assert {str(path): below for path in paths if (below := below_its_start(path.read_text()))} == {}
    assert below_its_start('if __name__ == "__main__":\n    main()\n\ndef late():\n    pass\n') == [
        "def late():"
    ]
