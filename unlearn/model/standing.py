"""A model as it stands, in words that let the other processes of a run ask the same one.

They have the files that it was loaded from, and can be told a patch. An edit or an attack may do anything else to it
in the first process: so a model is shared only while its weights, modules and hooks are those that were noted last,
when it was loaded or patched. That is seen without reading a weight.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch import Tensor

from unlearn.algebra.low_rank import LowRank
from unlearn.errors import UnlearnError
from unlearn.model import fourbit
from unlearn.model.library import Network
from unlearn.model.placing import Origin
from unlearn.patch import Deltas, sha256_of
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.shown import sentence
from unlearn.sums import Parted, Seat
from unlearn.team import seated, summed

if TYPE_CHECKING:
    from unlearn.model.editable import EditableModel

Result_co = TypeVar("Result_co", covariant=True)
Result = TypeVar("Result")


class Note(Protocol):
    """Says how a model has been changed, where the others can follow it."""

    def __call__(self, patch: Deltas | None = None) -> None:
        """By a patch; or, without one, in nothing that its answers depend on."""


def unnoted(patch: Deltas | None = None) -> None:
    """Note nothing: there are no others, or they could not follow the model before."""


@dataclass(frozen=True)
class Told:
    """A patch as another process is told it."""

    factors: Mapping[str, LowRank]
    """On the host."""
    device: str
    """The kind of device that multiplies them, ``cpu`` or ``cuda``: the sums are those of the first process."""

    @classmethod
    def of(cls, patch: Deltas) -> Told:
        """What the first process has."""
        kind = next((factor.left.device.type for factor in patch.factors.values()), "cpu")
        return cls({name: _at(factor, torch.device("cpu")) for name, factor in patch.factors.items()}, kind)

    def digest(self) -> str:
        """One hash over all of it."""
        parts = [
            (name, sha256_of(factor.left), sha256_of(factor.right)) for name, factor in self.factors.items()
        ]
        return hashlib.sha256(repr((self.device, sorted(parts))).encode()).hexdigest()

    def on(self, model: EditableModel) -> Deltas:
        """The patch for a model that was just found to be the same."""
        place = model.device if self.device != "cpu" else torch.device("cpu")
        return _Trial({name: _at(factor, place) for name, factor in self.factors.items()})


@dataclass(frozen=True)
class Standing:
    """Which model is meant: what was loaded, and the patch on it."""

    origin: Origin
    identity: str
    """Of the model as it was loaded."""
    patch: str | None = None
    """Hash of the patch on it; None for the model itself."""
    told: Told | None = None
    """That patch, where the others have not been told it before."""

    def there(self, kept: MutableMapping[object, object]) -> EditableModel:
        """The model in another process, loaded the first time and patched as the first process has it.

        Args:
            kept: what that process keeps.

        Raises:
            Parted: it cannot be loaded or patched there, or is another one.
        """
        try:
            place = kept.get(self.origin)
            if not isinstance(place, Copy):
                kept[self.origin] = place = Copy.loaded(self)
            return place.as_in(self)
        except Exception as problem:
            said = str(problem) if isinstance(problem, UnlearnError) else repr(problem)
            raise Parted(f"{self.origin.name} cannot be had here: {sentence(said, 240)}") from problem


class Stepwise(Protocol[Result_co]):
    """Work in steps: in each, all processes add up what all have made, in the order of one, and take the same step."""

    def done(self, model: EditableModel, seat: Seat, progress: Progress = NO_PROGRESS) -> Result_co:
        """Take all steps, together with the other processes that do so now."""


@dataclass(frozen=True)
class InStep:
    """Work that several processes do step by step: a task of `unlearn.team`."""

    standing: Standing
    """The model."""
    work: Stepwise[object]

    def share(self, seat: Seat, kept: MutableMapping[object, object]) -> list[Tensor]:
        """Take all steps; what comes of them the first process has as well.

        Raises:
            UnlearnError: another process cannot go on.
            Parted: there is no such model here.
        """
        self.work.done(self.standing.there(kept), seat)
        return []


def in_step(
    model: EditableModel, work: Stepwise[Result], standing: Standing | None, progress: Progress
) -> Result:
    """What comes of work that all processes of the run do step by step.

    Args:
        standing: the model in words; None if this process works alone.

    Raises:
        UnlearnError: another process could not do its share.
    """
    if standing is None:
        return work.done(model, Seat(), progress)
    found: list[Result] = []
    seat = seated()

    def mine() -> list[Tensor]:
        found.append(work.done(model, seat, progress))
        return []

    summed(InStep(standing, work), seat, mine)
    return found[0]


class Copy:
    """The model of the first process in another one."""

    def __init__(self, model: EditableModel) -> None:
        self.model = model
        self._told: Told | None = None
        self._told_as, self._on = "", ""
        self._patched = ExitStack()

    @classmethod
    def loaded(cls, standing: Standing) -> Copy:
        """Load it.

        Raises:
            Parted: it is another one.
        """
        from unlearn.model.editable import EditableModel

        model = EditableModel.load(*standing.origin)
        if model.identity() != standing.identity:
            raise Parted(f"{model.name} is another model here than in the first process")
        return cls(model)

    def as_in(self, standing: Standing) -> EditableModel:
        """The model under the patch that it has in the first process; the last one that was told is remembered."""
        wanted = standing.patch or ""
        if standing.told is not None:
            self._told, self._told_as = standing.told, wanted
        if wanted != self._on:
            self._patched.close()
            self._on = ""
            if wanted:
                if self._told is None or self._told_as != wanted:
                    raise Parted("it is under a patch that was not told here")
                self._patched.enter_context(self.model.patched(self._told.on(self.model)))
            self._on = wanted
        return self.model


class Likeness:
    """Whether the model of the first process still is one that the others can have, too."""

    def __init__(self, network: Network, origin: Origin, identity: str) -> None:
        """Note a model that was just loaded."""
        self._network, self._origin, self._identity = network, origin, identity
        self._patch: Deltas | None = None
        self._noted = traits(network)
        self._known_to_others: str | None = None

    def holds(self) -> bool:
        """Whether nothing has changed since it was noted."""
        narrow = torch.is_autocast_enabled(self._network.device.type)
        return not narrow and traits(self._network) == self._noted

    @contextmanager
    def changing(self) -> Iterator[Note]:
        """Within it the model may be changed; on exit it has to be what it was, bit for bit.

        Yields:
            What to call once it has been changed so that the others can follow it; they cannot until then.
        """
        shared, before = self.holds(), self._patch
        try:
            yield self._note if shared else unnoted
        finally:
            self._patch = before
            if shared:
                self._note()

    def _note(self, patch: Deltas | None = None) -> None:
        self._patch, self._noted = patch or self._patch, traits(self._network)

    def standing(self) -> Standing | None:
        """What to tell the others with the next task, which must be handed out; None if they cannot have the model."""
        if not self.holds():
            return None
        if self._patch is None:
            return Standing(self._origin, self._identity)
        told = Told.of(self._patch)
        digest = told.digest()
        new = digest != self._known_to_others
        self._known_to_others = digest
        return Standing(self._origin, self._identity, digest, told if new else None)


def traits(network: Network) -> object:
    """What changes with a model: with a weight that is written or replaced, a hook, a module, or how it attends."""
    weights = tuple(
        (name, id(tensor), tensor.data_ptr(), tensor._version) for name, tensor in _written(network)
    )
    modules = tuple(
        (
            id(module),
            tuple(module._forward_hooks),
            tuple(module._forward_pre_hooks),
            "forward" in vars(module),
        )
        for module in network.modules()
    )
    return weights, modules, network.config._attn_implementation, network.training


def _written(network: Network) -> Iterator[tuple[str, Tensor]]:
    """The live tensors of a model's ``state_dict()``, which has of matrices in 4 bits some that are made for it."""
    matrices = dict(fourbit.packed(network))
    apart = tuple(f"{path}.weight" for path in matrices)
    for name, tensor in network.state_dict(keep_vars=True).items():
        if not name.startswith(apart):
            yield name, tensor
    for path, module in matrices.items():
        yield from ((path, part) for part in fourbit.parts(module))


@dataclass(frozen=True)
class _Trial:
    """A patch without hashes: the model was compared as a whole."""

    factors: Mapping[str, LowRank]
    base: None = None
    header: Mapping[str, object] = field(default_factory=dict)


def _at(factor: LowRank, place: torch.device) -> LowRank:
    return LowRank(factor.left.detach().to(place), factor.right.detach().to(place))
