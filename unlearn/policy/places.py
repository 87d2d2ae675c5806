"""What the schema of a policy knows at a place: types and keys."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from typing import Annotated, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel

from unlearn.policy.document import Policy


def fields_at(loc: Sequence[str | int]) -> list[str]:
    """Return the keys that the schema knows at a place; `loc` as pydantic gives it, with union tags."""
    return [name for kind in kinds_at(loc) if _is_model(kind) for name in kind.model_fields]


def kinds_at(loc: Sequence[str | int]) -> list[object]:
    """Return the types that may stand at a place."""
    kinds: list[object] = [Policy]
    for part in loc:
        kinds = [inner for kind in kinds for inner in _inside(kind, part)]
    return kinds


def _is_model(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _inside(kind: object, part: str | int) -> Iterator[object]:
    if _is_model(kind):
        if part in kind.model_fields:
            yield from _branches(kind.model_fields[part].annotation)
        elif "name" in kind.model_fields and part in get_args(kind.model_fields["name"].annotation):
            yield kind  # the tag of a union, which pydantic puts into the place of an error
        return
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        yield from _branches(arguments[1])
    elif get_origin(kind) is tuple:
        yield from _branches(arguments[0])


def _branches(annotation: object) -> Iterator[object]:
    if get_origin(annotation) is Annotated:
        yield from _branches(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for branch in get_args(annotation):
            yield from _branches(branch)
    else:
        yield annotation
