"""Lists of plain facts, one file per kind of subject, from which policies for real models are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmarks.options import complaints
from unlearn.errors import PolicyError
from unlearn.files import read_yaml
from unlearn.policy import RelationSpec
from unlearn.policy.values import Name, Template, Text

FACTS = Path(__file__).with_name("facts")
"""The lists that come with the benchmark."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Listed(_Strict):
    prompts: tuple[Template, ...] = Field(min_length=2)
    held_out: tuple[Template, ...] = Field(min_length=2)
    kept: bool = False
    """Only ever a sibling: it has few answers, so that knowledge and a guess look the same."""
    answers: dict[Text, Text | tuple[Text, ...]] = {}


class _File(_Strict):
    relations: dict[Name, _Listed] = Field(min_length=1)


@dataclass(frozen=True)
class Relation:
    """A relation, its prompts, and what is asked about it."""

    name: str
    kind: str
    """Of its subjects: the name of the file."""
    spec: RelationSpec
    kept: bool
    answers: Mapping[str, tuple[str, ...]]
    """By subject, the answer and its other spellings."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """Those for the edit, then those held out."""
        return (*self.spec.prompts, *self.spec.held_out)


def read_lists(folder: Path = FACTS) -> dict[str, Relation]:
    """The relations of every list in a folder, by name.

    Raises:
        PolicyError: there is none, one is not a list of facts, or a relation stands in two of them.
    """
    found: dict[str, Relation] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            listed = _File.model_validate(read_yaml(path, error=PolicyError))
        except ValidationError as error:
            raise PolicyError(f"{path}: {complaints(error)}") from None
        for name, one in listed.relations.items():
            if name in found:
                raise PolicyError(f"{path}: the relation {name} stands in {found[name].kind}.yaml as well")
            found[name] = _relation(name, path.stem, one)
    if not found:
        raise PolicyError(f"{folder} holds no lists of facts (*.yaml)")
    return found


def _relation(name: str, kind: str, listed: _Listed) -> Relation:
    answers = {
        subject: (told,) if isinstance(told, str) else tuple(told) for subject, told in listed.answers.items()
    }
    return Relation(
        name, kind, RelationSpec(prompts=listed.prompts, held_out=listed.held_out), listed.kept, answers
    )
