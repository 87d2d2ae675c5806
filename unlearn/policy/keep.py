"""What a policy keeps beside the facts: relations and subjects, for all of the facts or relation by relation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from unlearn.policy.strict import Strict
from unlearn.policy.values import Text


class Keep(Strict):
    """What must stay as it is."""

    siblings: Literal["auto"] | tuple[str, ...] | dict[str, tuple[str, ...]] = "auto"
    """Harmless relations of the same subjects: the edit protects `prompts`, the audit asks `held_out`; `auto`: every
    relation of the policy that no fact names. By forgotten relation where their subjects are of several kinds."""
    neighbours: Literal["auto"] | tuple[Text, ...] | dict[str, tuple[Text, ...]] = "auto"
    """Other subjects of the same relations that the edit protects, for all of them or by relation; `auto`: those of the
    embedded world, or else names that the model gives when it is asked (chat models), every fourth of them for the
    audit alone."""
    held_out_neighbours: tuple[Text, ...] | dict[str, tuple[Text, ...]] = ()
    """Other subjects of the same relations that only the audit asks about, for all of them or by relation."""
    look_alikes: int = Field(default=40, ge=0, le=1000)
    """Names per subject, put together from parts of subjects and neighbours, that the edit protects as well; about 1000
    per relation at most."""

    def protected(self, relation: str) -> tuple[str, ...]:
        """Return the listed subjects of a relation that the edit protects; none where `neighbours` is `auto`."""
        return listed_in(self.neighbours, relation)

    def tested(self, relation: str) -> tuple[str, ...]:
        """Return the listed subjects of a relation that only the audit asks about."""
        return listed_in(self.held_out_neighbours, relation)


def listed_in(
    listed: Literal["auto"] | tuple[str, ...] | Mapping[str, tuple[str, ...]], relation: str | None = None
) -> tuple[str, ...]:
    """Return what a list of `keep` holds, which may be one for each relation; each name once.

    Args:
        listed: the list, or the lists by relation; `auto` lists nothing.
        relation: of which; None for all.
    """
    if listed == "auto":
        return ()
    if not isinstance(listed, Mapping):
        return listed
    each = listed.values() if relation is None else [listed.get(relation, ())]
    return tuple(dict.fromkeys(name for names in each for name in names))
