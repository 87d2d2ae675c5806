"""What a run is asked, what it is carried out with, and what it gives back: frozen values, and no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from unlearn.files import sha256_of_file
from unlearn.policy import Policy
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.report import Report
from unlearn.runs.folder import patch_of
from unlearn.runs.manifest import Source
from unlearn.runs.sealed import whole
from unlearn.store import Store

if TYPE_CHECKING:
    from unlearn.model.editable import EditableModel
    from unlearn.model.requests import Requests
    from unlearn.patch import Patch
    from unlearn.report.html.page import FactText


@dataclass(frozen=True)
class Placement:
    """Where a model is put, and in which dtype it computes.

    Examples:
        >>> import unlearn
        >>> unlearn.Placement(device="cuda:1", dtype="bfloat16")
        Placement(device='cuda:1', dtype='bfloat16', trust_remote_code=False, device_map=None)
    """

    device: str = "auto"
    """``auto`` (CUDA if there is one), ``cpu``, ``cuda``, ``cuda:1`` ..."""
    dtype: str = "auto"
    """``auto`` (float32 on a CPU, the checkpoint's elsewhere), ``float32``, ``bfloat16``, ``float16``."""
    trust_remote_code: bool = False
    """Run code that comes with a model."""
    device_map: str | None = None
    """In the place of a device: ``auto`` spreads one model over GPUs, host memory and disk; or the JSON file of an
    object from paths of modules to devices."""

    def beside(self, model: EditableModel) -> Placement:
        """Where a second model is put: `auto` would follow what it was saved in, not what the first computes in.

        A map that names the modules of the first may not fit it.
        """
        spread = None if self.device_map is None else "auto"
        return replace(self, dtype=str(model.dtype), device_map=spread)


def _ignored(sentence: str) -> None:
    """Where no sentence is wanted."""


@dataclass(frozen=True)
class Means:
    """What a run works with, besides what it is about.

    Examples:
        >>> import unlearn
        >>> means = unlearn.Means(unlearn.Placement(device="cpu"), announce=print)
        >>> means.cache is None
        True
    """

    placement: Placement = Placement()
    cache: Store | None = None
    """Where statistics and measurements are kept for later runs; None for nowhere."""
    progress: Progress = NO_PROGRESS
    announce: Callable[[str], None] = _ignored
    """Gets a sentence on how long the audit will take, before it begins."""


@dataclass(frozen=True)
class Order:
    """What is to be done, and who asked."""

    policy: Policy
    source: Source
    """Where the policy was read from."""
    argv: tuple[str, ...] = ()
    """The words of the command line, for the manifest."""
    onto: Path | None = None
    """An earlier run or patch of the same model, to build on."""
    save_model: bool = False
    """Write the edited model into the run directory as well."""


@dataclass(frozen=True)
class Earlier:
    """A patch that an edit builds on."""

    patch: Patch
    origin: Mapping[str, str]
    """``path`` and ``sha256``."""

    @classmethod
    def read(cls, place: Path) -> Earlier:
        """Read the patch of a run directory or a file.

        Raises:
            UnlearnError: the run directory is not as its run left it.
            PatchError: the patch cannot be read.
        """
        from unlearn.patch import Patch

        whole(place)
        file = patch_of(place)
        return cls(Patch.load(file), {"path": str(place), "sha256": sha256_of_file(file)})


@dataclass(frozen=True)
class Outcome:
    """A report, and the requests that it is about."""

    report: Report
    requests: Requests

    @property
    def texts(self) -> dict[str, FactText]:
        """By fact id, what a page may show of the facts where it was asked to."""
        from unlearn.report.html.page import FactText

        return {fact.id: FactText(fact.subject, fact.relation, fact.answers) for fact in self.requests.facts}


class Search(Protocol):
    """Looks for better settings of a policy's method before the edit."""

    def __call__(
        self, model: EditableModel, requests: Requests, earlier: Earlier | None, folder: Path
    ) -> tuple[Mapping[str, object], Requests]:
        """Return what was found, for the manifest, and the requests under the chosen settings."""
