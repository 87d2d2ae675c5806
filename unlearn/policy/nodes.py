"""A policy file as YAML nodes: the line of every key, and what YAML 1.1 reads differently from what was meant."""

from __future__ import annotations

import yaml

from unlearn.policy.checks import Problem

Loc = tuple[str | int, ...]
"""Keys and indices from the top of the file."""

_STR, _INT, _FLOAT, BOOL, _NULL = (
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")
)


class Nodes:
    """The parsed file as places: the line of every key, and what YAML 1.1 misreads."""

    def __init__(self, root: yaml.Node) -> None:
        self.nodes: dict[Loc, yaml.Node] = {}
        self.lines: dict[Loc, int] = {}
        self.traps: list[Problem] = []
        self.overridden: set[Loc] = set()
        self._around: set[Loc] = set()
        self._walk(root, (), root.start_mark.line + 1)

    def _walk(self, node: yaml.Node, loc: Loc, line: int) -> None:
        self.nodes[loc], self.lines[loc] = node, line
        if isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                self._walk(item, (*loc, i), item.start_mark.line + 1)
        elif isinstance(node, yaml.MappingNode):
            self._walk_mapping(node, loc)
        elif node.tag in (_INT, _FLOAT) and ":" in node.value:
            sentence = f'YAML reads {node.value} as a number in base 60: write "{node.value}" in quotes'
            self.traps.append(Problem(loc, sentence))

    def _walk_mapping(self, node: yaml.MappingNode, loc: Loc) -> None:
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            place = (*loc, name)
            if name in first:
                self.traps.append(Problem(place, f"the same key stands on line {first[name]}"))
                self.lines[place] = line
                continue
            first[name] = line
            self._walk(value, place, line)
            if not isinstance(key, yaml.ScalarNode):
                self.traps.append(Problem(place, "a key must be text"))
            elif key.tag != _STR:
                self.traps.append(Problem(place, f'a key must be text: write "{name}" in quotes'))

    def override(self, loc: Loc, node: yaml.Node | None) -> None:
        """Let a value from elsewhere stand at a place: what the file says there has no line any more."""
        for place in [place for place in self.nodes if place[: len(loc)] == loc]:
            del self.nodes[place], self.lines[place]
        before = set(self.nodes)
        if node is not None:
            self._walk(node, loc, 0)
        self.overridden |= {loc, *(set(self.nodes) - before)}
        # A key that the file does not have may have been set, and what it stands in with it.
        self._around |= {loc[:n] for n in range(1, len(loc))}

    def matched(self, loc: Loc, missing: bool = False) -> Loc:
        """Return `loc` without what only pydantic knows of: union branches and tags.

        Args:
            loc: as pydantic gives it.
            missing: whether its last part is a key that should be there, and is not.
        """
        place: Loc = ()
        for i, part in enumerate(loc):
            step = (*place, part)
            parent = self.nodes.get(place)
            last = i == len(loc) - 1
            if (
                step in self.nodes
                or step in self.overridden
                or step in self._around
                or (missing and last and isinstance(parent, yaml.MappingNode))
            ):
                place = step
        return place

    def line(self, loc: Loc) -> int | None:
        """Return the line of a key, or of the nearest thing around it; None if it came from an override."""
        while loc not in self.lines or loc in self.overridden:
            if loc in self.overridden:
                return None
            loc = loc[:-1]
        return self.lines[loc]

    def scalar(self, loc: Loc) -> yaml.ScalarNode | None:
        """Return the scalar that stands at a place, if one does."""
        node = self.nodes.get(loc)
        return node if isinstance(node, yaml.ScalarNode) else None


def instead(node: yaml.ScalarNode | None, quote: bool = False) -> str:
    """Return ", got a number" and the like, and with `quote` what to write so that it is text."""
    if node is None:
        return ""
    if node.tag == _NULL:
        return ", got nothing"
    kind = {_INT: "a number", _FLOAT: "a number", _STR: "text"}.get(node.tag, "")
    kind = kind or ("a date" if node.tag.endswith("timestamp") else "a boolean")
    return f", got {kind}" + (f': write "{node.value}" in quotes' if quote else "")
