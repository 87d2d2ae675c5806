"""Reading a policy file: every problem with its line, all at once, and nothing loaded if there is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from unlearn.errors import PolicyError, PolicyProblems
from unlearn.files import MIB, UNREADABLE, JsonObject, PlainLoader, at_home, exists, read_text
from unlearn.policy.checks import Problem, cross_check, suggestion
from unlearn.policy.document import Policy
from unlearn.policy.former import GONE, RENAMED, present
from unlearn.policy.method import CHOICES, Automatic
from unlearn.policy.nodes import BOOL, Loc, Nodes, instead
from unlearn.policy.paths import placed
from unlearn.policy.places import fields_at, kinds_at
from unlearn.shipped import shipped
from unlearn.shown import sentence

_LARGEST = 16 * MIB  # bytes; a policy of ten thousand facts has two million
_SENTENCES = {
    "missing": "this key is required and missing",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "dict_type": "expected a mapping of keys to values",
    "model_type": "expected a mapping of keys to values",
    "model_attributes_type": "expected a mapping of keys to values, such as {name: alphaedit}",
    "union_tag_not_found": "needs a `name`, such as {name: alphaedit}",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
}


def load_policy(path: str | Path, overrides: Mapping[str, str] | None = None) -> Policy:
    """Read and check a policy file.

    Args:
        path: a YAML file in UTF-8.
        overrides: values by dotted key ("model", "method.name", "audit.limits.leak.direct"), as YAML text, that
            stand in for what the file says. A new `method.name` drops the other settings of the method.

    Raises:
        PolicyError: the file cannot be read.
        PolicyProblems: with one line `path:line key  sentence` per problem.

    Examples:
        >>> import unlearn
        >>> policy = unlearn.load_policy("policies/demo.yaml", {"method.name": "rome"})
        >>> policy.name, policy.method.name, len(policy.facts)
        ('demo', 'rome', 24)
    """
    path = Path(at_home(str(path)))
    nodes, data = _parsed(path, _read(path))
    problems, in_the_file = list(nodes.traps), len(nodes.traps)
    for key, value in (overrides or {}).items():
        problem = _override(data, nodes, key, value)
        if problem:
            problems.append(problem)
    problems += nodes.traps[in_the_file:]
    policy, found = _validate(data, nodes)
    trapped = {problem.loc for problem in problems}
    problems += [problem for problem in found if problem.loc not in trapped]
    if policy is not None:
        resolved = placed(policy, path.parent, nodes.overridden)
        if isinstance(resolved, Policy):
            policy = resolved
        else:
            problems += resolved
    if problems or policy is None:
        places = [(nodes.line(p.loc), _key(p.loc), p.sentence) for p in problems]
        raise _refusal(path, sorted(places, key=lambda place: place[0] or 0))
    return policy


def _parsed(path: Path, text: str) -> tuple[Nodes, JsonObject]:
    """The YAML of a policy: where its values stand, and the values.

    Raises:
        PolicyProblems: it is no YAML, or no mapping.
    """
    try:
        loader = PlainLoader(text)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        said = f"not valid YAML: {error.problem or error.context}"
        raise _refusal(path, [(_line(error), "", said)]) from None
    except yaml.YAMLError:
        said = "not valid YAML: it holds characters that YAML does not allow"
        raise _refusal(path, [(1, "", said)]) from None
    except RecursionError:
        raise _refusal(path, [(1, "", "nested too deeply for a policy")]) from None
    if root is None:
        raise _refusal(path, [(1, "", "the file is empty; `policies/template.yaml` shows every key")])
    if not isinstance(root, yaml.MappingNode):
        raise _refusal(path, [(1, "", "expected keys and values, such as `version: 1`")])
    nodes = Nodes(root)
    try:
        return nodes, loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        places = _unreadable(nodes) or [(_line(error), "", _forbidden(error))]
    except UNREADABLE:
        places = _unreadable(nodes) or [(1, "", "not valid YAML; write values in quotes")]
    raise _refusal(path, places)


def _line(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else 1


def _unreadable(nodes: Nodes) -> list[tuple[int | None, str, str]]:
    """The values that YAML takes for something and cannot read as that, such as the date 2020-13-45."""
    found: list[tuple[int | None, str, str]] = []
    for loc, node in nodes.nodes.items():
        try:
            if isinstance(node, yaml.ScalarNode):
                PlainLoader("").construct_object(node)
        except yaml.MarkedYAMLError as error:
            found.append((nodes.line(loc), _key(loc), _forbidden(error)))
        except UNREADABLE:
            found.append((nodes.line(loc), _key(loc), _not_that(node)))
    return found


def _forbidden(error: yaml.MarkedYAMLError) -> str:
    return f"not allowed in a policy: {error.problem}"


def _not_that(node: yaml.Node) -> str:
    kind = node.tag.rpartition(":")[2]
    return f'YAML cannot read {node.value} as a {kind}: write "{node.value}" in quotes'


def schema() -> JsonObject:
    """Return the JSON Schema of a policy, for editors that check YAML while it is written."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return head | Policy.model_json_schema() | {"title": "unlearn policy"}


def _read(path: Path) -> str:
    if not exists(path):
        known = sorted(str(found) for found in shipped("policies").glob("*.yaml"))
        hint = "; shipped policies: " + ", ".join(known) if known else ""
        raise PolicyError(f"{path}: no such file{hint}")
    return read_text(path, most=_LARGEST, error=PolicyError)


def _validate(data: JsonObject, nodes: Nodes) -> tuple[Policy | None, list[Problem]]:
    try:
        return Policy.model_validate(data), list(_booleans(nodes))
    except ValidationError as error:
        found: dict[Loc, list[str]] = {}
        details = error.errors(include_url=False, include_input=False)
    for detail in details:
        if detail["loc"][-1:] == ("[key]",):
            detail["loc"] = detail["loc"][:-1]
            if not isinstance(detail["loc"][-1], str):
                detail["type"] = "policy"  # named already, as a key that YAML does not read as text
    at = [nodes.matched(detail["loc"], detail["type"] == "missing") for detail in details]
    passed = {loc[:n] for loc in at for n in range(len(loc))}
    for detail, loc in zip(details, at, strict=True):
        if detail["type"] == "policy":
            continue
        if detail["type"] == "union_tag_invalid":
            loc = (*loc, "name")
        # A union reports every branch; the branch that got furthest is the one that was meant.
        if loc in passed:
            continue
        found.setdefault(loc, []).append(_sentence(detail, loc, nodes))
    problems = [Problem(loc, _either(list(dict.fromkeys(parts)))) for loc, parts in found.items()]
    known = set(found)
    problems += [problem for problem in cross_check(data) if problem.loc not in known]
    return None, problems


def _either(parts: list[str]) -> str:
    """The complaints of a union's branches as one; what they all got is said once."""
    got = parts[-1].partition(", got ")[2]
    found = " or ".join([*(part.removesuffix(f", got {got}") for part in parts[:-1]), parts[-1]])
    for said, better in (
        (" or expected", " or"),
        (" or must not be empty", " or a list that is not empty"),
        (" or input should be", " or a number"),
    ):
        found = found.replace(said, better)
    return found


def _booleans(nodes: Nodes) -> Iterator[Problem]:
    # pydantic takes `yes` for the number 1.
    for loc, node in nodes.nodes.items():
        if node.tag == BOOL and bool not in kinds_at(loc):
            yield Problem(loc, f"expected a number, got a boolean ({node.value})")


def _sentence(detail: ErrorDetails, loc: Loc, nodes: Nodes) -> str:
    kind, context = detail["type"], detail.get("ctx") or {}
    node = nodes.scalar(loc)
    if kind == "extra_forbidden":
        return _unknown(str(loc[-1]), detail["loc"])
    if kind == "union_tag_invalid":
        expected = [name.strip().strip("'") for name in context["expected_tags"].split(",")]
        hint = suggestion(context["tag"], expected) or f"; known: {', '.join(expected)}"
        return f"unknown method `{context['tag']}`{hint}"
    if kind == "literal_error":
        return f"expected {context['expected']}".replace("'", "`")
    if kind == "string_type":
        return "expected text" + instead(node, quote=True)
    if kind == "string_pattern_mismatch":
        blank = context.get("pattern") == r"\S"
        return "must not be blank" if blank else "use letters, digits, dots, dashes and underscores only"
    known = _SENTENCES.get(kind, "")
    if known:
        return known + (instead(node) if kind.endswith("_type") else "")
    message = str(detail["msg"])
    return message[:1].lower() + message[1:]


def _unknown(key: str, loc: Loc) -> str:
    """What is wrong with a key that the schema does not know; `loc` as pydantic gives it."""
    if loc[0] == "method" and key in GONE:
        return GONE[key]
    having = [name for name in CHOICES if present(key) in fields_at(("method", name))]
    if loc[:2] == ("method", "auto") and having:
        called = f", called `{present(key)}` now" if key in RENAMED else ""
        return f"`auto` chooses the method; to set this{called}, name one that has it: {', '.join(having)}"
    return f"unknown key{suggestion(key, fields_at(loc[:-1]))}"


def _split(key: str) -> list[str]:
    # The names of limits hold dots themselves.
    prefix = "audit.limits."
    return ["audit", "limits", key[len(prefix) :]] if key.startswith(prefix) else key.split(".")


def _override(data: JsonObject, nodes: Nodes, key: str, value: str) -> Problem | None:
    *parents, last = parts = _split(key)
    loc = tuple(parts)
    nodes.override(loc, None)
    place = data
    for part in parents:
        if place.get(part) is None:
            # Without a `method` the policy has the default one, which is what is set then.
            place[part] = {"name": Automatic().name} if place is data and part == "method" else {}
        elif place is data and part == "method" and isinstance(place[part], str):
            place[part] = {"name": place[part]}
        place = place[part]
        if not isinstance(place, dict):
            return Problem(loc, "cannot be set: what stands above it in the file is not a mapping")
    try:
        loader = PlainLoader(value)
        node = loader.get_single_node()
        parsed = None if node is None else loader.construct_document(node)
    except yaml.constructor.ConstructorError as error:
        return Problem(loc, _forbidden(error))
    except (yaml.YAMLError, RecursionError):
        return Problem(loc, "the value is not valid YAML")
    except UNREADABLE:
        return Problem(
            loc, _not_that(node) if isinstance(node, yaml.ScalarNode) else "the value is not valid YAML"
        )
    nodes.override(loc, node)
    if parts == ["method", "name"] and place.get("name", Automatic().name) != parsed:
        place.clear()
    place[last] = parsed
    return None


def _key(loc: Loc) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _refusal(path: Path, places: Sequence[tuple[int | None, str, str]]) -> PolicyProblems:
    # Keys and values are quoted in both, and may be anything.
    heads = [sentence(f"{path}:{line} {key}" if line else f"--set {key}", 200) for line, key, _ in places]
    width = min(max(map(len, heads)), 60)
    lines = [
        f"{head:<{width}}  {sentence(said, 400)}" for head, (_, _, said) in zip(heads, places, strict=True)
    ]
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    return PolicyProblems([*lines, f"{count}, nothing was loaded."])
