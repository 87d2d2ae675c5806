"""Where the data that travels with the package lies: the shipped policies and the evaluation suites."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from unlearn.errors import UnlearnError

_PACKAGE = Path(__file__).resolve().parent


def shipped(kind: Literal["policies", "evals"]) -> Path:
    """Return the folder of shipped data, in a wheel, an editable install and a plain checkout alike.

    A wheel carries the folders inside the package; a checkout and an editable install have them beside it.

    Raises:
        UnlearnError: if neither place has the folder, which means that the installation is incomplete.
    """
    inside, beside = _PACKAGE / kind, _PACKAGE.parent / kind
    for folder in (inside, beside):
        if folder.is_dir():
            return folder
    raise UnlearnError(f"the shipped {kind} are missing (looked at {inside} and {beside}): reinstall unlearn")
