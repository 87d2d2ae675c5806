"""What an edit is going to do, before it does anything; and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unlearn.edit.conflict_report import Conflicts
from unlearn.edit.corpus import Corpus
from unlearn.edit.sequence import Reached, Sofar
from unlearn.edit.settings import Algorithm, ClosedForm, Tuning
from unlearn.edit.statistics import Statistics
from unlearn.files import Json


@dataclass(frozen=True)
class Plan:
    """An edit without any choice left (``choose``)."""

    method: Mapping[str, Json]
    """The settings as a policy would write them, no number `auto`."""
    largest: float | None
    """Most times its weight (Frobenius) that an update may be long; None for no limit."""
    algorithm: Algorithm
    """What they describe."""
    layers: tuple[int, ...]
    """To be written, ascending; none where the weights stay as they are."""
    corpus: Corpus
    statistics: Mapping[int, Statistics]
    """Of the layers, for an algorithm that looks at the corpus; empty where they were not to be read."""
    reasons: Mapping[str, str]
    """Why the method, the look-up tokens and the layers are what they are, in words that quote no policy."""
    reach: float | None = None
    """What an unlisted neighbour would get, in closed form, of what a request gets; None if not measured."""
    conflicts: Conflicts | None = None
    """What cannot be changed and kept at once: a report, which decides nothing."""

    @property
    def reads_corpus(self) -> bool:
        """Whether the update stays clear of the corpus's keys, whose statistics it needs."""
        return isinstance(self.algorithm, ClosedForm | Tuning)

    @property
    def name(self) -> str:
        """Of the method."""
        return str(self.method["name"])


@dataclass(frozen=True)
class Made:
    """The update that a plan gave."""

    sofar: Sofar
    """With what was there before."""
    reached: Sequence[Reached] = ()
    """By batch."""
    notes: Mapping[str, object] = field(default_factory=dict)
    """What else the patch's header says: JSON values."""
    warnings: Sequence[str] = ()
    """What its reader must know, in sentences that quote no policy."""
