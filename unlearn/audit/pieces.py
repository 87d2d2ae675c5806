"""An observation in pieces, so that an interrupted audit goes on where it stopped and can say how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from unlearn.audit.observation import Observation
from unlearn.progress import NO_PROGRESS, Progress

if TYPE_CHECKING:
    from unlearn.model.editable import EditableModel


@dataclass(frozen=True)
class Piece:
    """A part of an observation that is made in one go."""

    name: str
    """Names it among the pieces of one model state: "asked.held_out", "capability.arc_easy", "attack.lens"."""
    work: float
    """What it costs, in generated tokens (`unlearn.audit.estimate`)."""
    make: Callable[[], Observation]
    """Makes it: an observation that holds nothing but this part, with its failures."""


class Pieces(Protocol):
    """Where the pieces of one model state are kept while the others are being made."""

    def find(self, name: str) -> Observation | None:
        """A piece that an interrupted run has left; None if there is none."""

    def keep(self, piece: Piece, made: Observation, seconds: float) -> None:
        """Keep a piece that was just made, and how long that took."""

    def seconds(self, piece: Piece) -> float:
        """About how long a piece will take, for the bar; any unit does if it is the same for all."""

    def clear(self) -> None:
        """Forget the pieces: the observation that they belong to is whole and has been used."""


class NoPieces:
    """Keeps nothing."""

    def find(self, name: str) -> Observation | None:
        """Nothing."""
        return None

    def keep(self, piece: Piece, made: Observation, seconds: float) -> None:
        """Forget it."""

    def seconds(self, piece: Piece) -> float:
        """The work itself."""
        return piece.work

    def clear(self) -> None:
        """There is nothing to forget."""


Kept = Callable[["EditableModel", str], Pieces]
"""Gives the place for the pieces of a model state, from the model in that state and what else is said about it."""
NO_PIECES = NoPieces()
"""The one that keeps nothing, for defaults."""


def assembled(
    start: Observation,
    todo: Sequence[Piece],
    pieces: Pieces = NO_PIECES,
    progress: Progress = NO_PROGRESS,
    label: str = "Measuring",
) -> Observation:
    """Make all pieces, or take them from where they are kept, and put them together.

    A piece with a failure is not kept: the next run may have what this one lacked.

    Args:
        progress: where to show it: one bar over all pieces, in the seconds that they are expected to take.
    """
    whole = start
    expected = [max(1, round(pieces.seconds(piece))) for piece in todo]
    with progress.step(label, total=sum(expected)) as bar:
        for piece, share in zip(todo, expected, strict=True):
            made = pieces.find(piece.name)
            if made is None:
                begin = time.monotonic()
                made = piece.make()
                if not made.failed:
                    pieces.keep(piece, made, time.monotonic() - begin)
            whole = joined(whole, made)
            bar.advance(share)
    return whole


def joined(one: Observation, other: Observation) -> Observation:
    """Both observations in one; of what both hold, the other's counts."""
    update = {}
    for name in Observation.model_fields:
        mine, others = getattr(one, name), getattr(other, name)
        update[name] = {**mine, **others} if isinstance(mine, dict) else others or mine
    return one.model_copy(update=update)
