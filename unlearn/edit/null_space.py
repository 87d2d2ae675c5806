"""The null space of a layer: the directions that the corpus hardly uses, to which an update is confined."""

from __future__ import annotations

from dataclasses import dataclass

from unlearn.algebra.moments import Projector, Spectrum


@dataclass(frozen=True)
class Spared:
    """The corpus's leading directions that an update leaves alone; its null space is the rest."""

    energy: float
    """The share of the corpus's energy that they carry."""
    threshold: float | None = None
    """Instead, those with an eigenvalue of at least this (as published)."""

    def count(self, spectrum: Spectrum) -> int:
        """How many they are in a layer."""
        if self.threshold is not None:
            return spectrum.kept_by_threshold(self.threshold)
        return spectrum.kept_by_energy(self.energy)

    def projector(self, spectrum: Spectrum) -> Projector:
        """``P`` of a layer."""
        return Projector.null_space(spectrum, self.count(spectrum))
