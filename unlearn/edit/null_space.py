"""The null space of a layer: the directions that the corpus hardly uses, to which an update is confined."""

from __future__ import annotations

from dataclasses import dataclass

from unlearn.algebra.blocks import AnySpectrum
from unlearn.algebra.moments import Directions, Metric


@dataclass(frozen=True)
class Spared:
    """The corpus's leading directions that an update leaves alone; its null space is the rest."""

    energy: float
    """The share of the corpus's energy that they carry."""
    threshold: float | None = None
    """Instead, those with an eigenvalue of at least this (as published)."""

    def count(self, spectrum: AnySpectrum) -> int:
        """How many they are in a layer."""
        if self.threshold is not None:
            return spectrum.kept_by_threshold(self.threshold)
        return spectrum.kept_by_energy(self.energy)

    def projector(self, spectrum: AnySpectrum) -> Metric:
        """``P`` of a layer."""
        return spectrum.null_space(self.count(spectrum))

    def directions(self, spectrum: AnySpectrum) -> Directions:
        """A basis of a layer's null space."""
        return spectrum.unused(self.count(spectrum))
