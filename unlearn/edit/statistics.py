"""Second moments of the keys of all edited layers and their spectra, cached under what they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import isqrt

import torch
from torch import Tensor

from unlearn.algebra.blocks import AnySpectrum, BlockSpectrum, spectrum_of
from unlearn.algebra.moments import Spectrum
from unlearn.edit.corpus import Corpus
from unlearn.edit.reading import LONGEST, collected, place_for
from unlearn.model.editable import EditableModel
from unlearn.model.identity import HASHING, of_tokenizer
from unlearn.policy import Policy
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.store import Store

DECOMPOSING = 8
"""Matrices that there must be room for to decompose one on the GPU: it, its symmetric part, vectors, work space."""
FORMAT = 2

MANY, LEAST, EACH = 200_000, 20_000, 20
"""Tokens that `auto` reads of text that is there; of text that the model has to write, these at least, and so many for
every number of a key."""

MadeOf = dict[str, str | int]
"""What statistics were computed from, as hashes and numbers."""


@dataclass(frozen=True)
class Statistics:
    """``C`` of one layer and its spectrum, float64."""

    second: Tensor
    """(d_in, d_in), or of experts (E, w, w), on the host."""
    spectrum: AnySpectrum
    """Where the model is, if all layers' fit there, else on the host."""
    tokens: int
    """How many keys were averaged."""


@dataclass(frozen=True)
class Source:
    """Where an edit's statistics come from."""

    corpus: Corpus
    tokens: int
    """How many are read."""
    cache: Store | None = None
    progress: Progress = NO_PROGRESS
    reads: bool = True
    """Whether the corpus may be read; otherwise only what the cache has is used."""

    @classmethod
    def of(
        cls,
        policy: Policy,
        model: EditableModel,
        cache: Store | None,
        progress: Progress = NO_PROGRESS,
        reads: bool = True,
    ) -> Source:
        """As a policy says, for a model."""
        return cls(Corpus.of(policy, model, cache), tokens_of(policy, model), cache, progress, reads)

    def statistics(
        self, model: EditableModel, layers: Sequence[int], known: Mapping[int, Statistics] | None = None
    ) -> dict[int, Statistics]:
        """Those of some layers, less work for what is known; nothing where they would have to be read and may not."""
        here = {layer: found for layer, found in (known or {}).items() if layer in layers}
        missing = [layer for layer in layers if layer not in here]
        if self.reads:
            here |= key_statistics(model, missing, self.corpus, self.tokens, self.cache, self.progress)
        elif self.cache is not None:
            here |= _known(self.cache, _file_names(missing, self.made_of(model)), model.anatomy.experts)
        return {layer: here[layer] for layer in layers} if set(layers) <= set(here) else {}

    def made_of(self, model: EditableModel) -> MadeOf:
        """What the statistics of a model are computed from."""
        return made_of(model, self.corpus, self.tokens)


def key_statistics(
    model: EditableModel,
    layers: Sequence[int],
    corpus: Corpus,
    tokens: int,
    cache: Store | None = None,
    progress: Progress = NO_PROGRESS,
) -> dict[int, Statistics]:
    """Moments and spectra of the keys at every token of the first ``tokens`` tokens of a corpus.

    Args:
        model: read in one pass, stopped above the deepest layer.
        cache: keeps one file per layer, named by the hash of everything that the numbers depend on.

    Raises:
        UnlearnError: the corpus holds fewer than twice d_in tokens, too few to tell used directions from unused ones.
    """
    names = _file_names(layers, made_of(model, corpus, tokens)) if cache else {}
    found = _known(cache, names, model.anatomy.experts) if cache else {}
    missing = [layer for layer in layers if layer not in found]
    if missing:
        moments_of = collected(model, missing, corpus, tokens, progress)
        with progress.step("Null spaces", total=len(missing)) as bar:
            for layer in missing:
                moments = moments_of.pop(layer)
                second, count = moments.second, moments.count
                del moments
                found[layer] = decomposed(model, second, count)
                if cache:
                    cache.keep(names[layer], *_content(found[layer]))
                bar.advance()
    place = place_for(model, len(layers))
    return {layer: _at(found[layer], place) for layer in layers}


def decomposed(model: EditableModel, second: Tensor, tokens: int) -> Statistics:
    """The statistics of one layer of a model, on the host, from its second moment, float64."""
    second = second.to(place_for(model, DECOMPOSING))
    return _at(Statistics(second, spectrum_of(second), tokens), torch.device("cpu"))


def keep(cache: Store, layer: int, statistics: Statistics, origin: MadeOf) -> bool:
    """Put one layer's statistics where ``key_statistics`` finds them; whether there was room."""
    return cache.keep(_file_names([layer], origin)[layer], *_content(statistics))


def _at(statistics: Statistics, place: torch.device) -> Statistics:
    spectra = [_spectrum_at(one, place) for one in _blocks(statistics.spectrum)]
    return replace(statistics, second=statistics.second.cpu(), spectrum=_together(spectra))


def _spectrum_at(spectrum: Spectrum, place: torch.device) -> Spectrum:
    # Column by column, as decompositions leave them and files keep them: a product with one key differs by the layout.
    return Spectrum(spectrum.values.to(place), spectrum.vectors.to(place).T.contiguous().T)


def _blocks(spectrum: AnySpectrum) -> tuple[Spectrum, ...]:
    return spectrum.blocks if isinstance(spectrum, BlockSpectrum) else (spectrum,)


def _together(spectra: Sequence[Spectrum]) -> AnySpectrum:
    return spectra[0] if len(spectra) == 1 else BlockSpectrum(tuple(spectra))


def tokens_of(policy: Policy, model: EditableModel) -> int:
    """How many tokens of the corpus a policy has read."""
    tokens = policy.statistics.tokens
    if tokens != "auto":
        return tokens
    written = Corpus.of(policy, model).own is not None
    return max(LEAST, EACH * model.anatomy.d_ff // model.anatomy.routed) if written else MANY


def made_of(model: EditableModel, corpus: Corpus, tokens: int) -> MadeOf:
    """Everything that the numbers depend on, but the layer."""
    return {
        "format": FORMAT,
        "model": model.identity(),
        "dtype": str(model.dtype),
        "tokenizer": of_tokenizer(model.tokenizer),
        "corpus": corpus.fingerprint(),
        "tokens": tokens,
        "longest": LONGEST,
    }


def _file_names(layers: Sequence[int], origin: MadeOf) -> dict[int, str]:
    digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
    return {layer: f"keys-{digest[:32]}-{layer}" for layer in layers}


def _known(cache: Store, names: Mapping[int, str], experts: int) -> dict[int, Statistics]:
    """Those of some layers' statistics that the cache holds."""
    # Checking the seals of 30 GB takes half a minute; hashlib lets other threads run.
    with ThreadPoolExecutor(HASHING) as pool:
        contents = pool.map(cache.find, names.values())
        return {
            layer: _statistics(got, experts)
            for layer, got in zip(names, contents, strict=True)
            if got is not None
        }


def _content(statistics: Statistics) -> list[memoryview]:
    """The bytes of statistics, all float64: C; per block the eigenvectors one after the other, then the eigenvalues.

    The count comes last.
    """
    blocks = _blocks(statistics.spectrum)
    parts = (
        statistics.second.contiguous(),
        *(block.vectors.mT.contiguous() for block in blocks),
        *(block.values.contiguous() for block in blocks),
        torch.tensor([statistics.tokens], dtype=torch.float64),
    )
    return [part.cpu().numpy().data.cast("B") for part in parts]


def _statistics(content: memoryview, experts: int) -> Statistics:
    """What ``_content`` was made of, to the last bit and laid out alike in memory; nothing is copied."""
    numbers = torch.frombuffer(content, dtype=torch.float64)
    width = isqrt(len(numbers) // (2 * experts))
    squares = experts * width**2
    second, vectors, values, tokens = numbers.split([squares, squares, experts * width, 1])
    spectra = [
        Spectrum(value, vector.mT)
        for value, vector in zip(
            values.view(experts, width), vectors.view(experts, width, width), strict=True
        )
    ]
    shape = (width, width) if experts == 1 else (experts, width, width)
    return Statistics(second.view(shape), _together(spectra), int(tokens))
