"""No module of the package imports itself through others: imports inside of functions are counted, too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = "unlearn"


def modules(root: Path) -> dict[str, Path]:
    """Every module below a package's folder, by its dotted name."""
    names = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that are ever carried out: all but those for a type checker."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for other in node.orelse:
                yield from imports(other)
        else:
            yield from imports(node)


def graph(found: Mapping[str, Path]) -> dict[str, set[str]]:
    """By module, those that it imports; `from package import module` is an import of the module."""
    edges: dict[str, set[str]] = {}
    for name, path in found.items():
        edges[name] = set()
        for node in imports(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                assert node.level == 0, f"{path}: a relative import"
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [each if each in found else str(node.module) for each in whole]
            edges[name] |= {target for target in targets if target in found} - {name}
    return edges


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Sets of modules each of which reaches every other: strongly connected components of two or more."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for other in edges[todo.pop()] - seen:
                seen.add(other)
                todo.append(other)
        return seen

    from_each = {name: reached(name) for name in edges}
    groups = {
        tuple(sorted(other for other in there if name in from_each[other]))
        for name, there in from_each.items()
        if name in there
    }
    return sorted(map(list, groups))


def test_no_module_imports_itself_through_others(root: Path) -> None:
    edges = graph(modules(root / PACKAGE))
    assert len(edges) > 150 and "unlearn.policy" in edges["unlearn.run"]
    assert circles(edges) == []


def test_a_circle_is_found_wherever_its_imports_stand(tmp_path: Path) -> None:
    package = tmp_path / "toy"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text("import toy.two\n")
    (package / "two.py").write_text("def late():\n    from toy import three\n")
    (package / "three.py").write_text("from toy.one import name\n")
    types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from toy import three\n"
    (package / "four.py").write_text(types)
    assert circles(graph(modules(package))) == [["toy.one", "toy.three", "toy.two"]]
    (package / "three.py").write_text("from toy import four\n")
    assert circles(graph(modules(package))) == []
