"""One boundary around what libraries do with a stranger's model: whatever they raise is a sentence about a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from unlearn.errors import ModelError, UnlearnError
from unlearn.model.memory import ran_out
from unlearn.shown import sentence

LONGEST = 300
"""Characters of what a library says."""
AGAIN = "fetch or save the model anew"
"""What to do about a file that cannot be used."""


@contextmanager
def reading(
    name: str, what: Path | str, remedy: str = AGAIN, outcome: str = "cannot load the model"
) -> Iterator[None]:
    """Turn what is raised inside into an error that names the file; the original stays its cause.

    Interruptions, and memory that runs out, stay what they are.

    Args:
        name: what the user calls the model or the adapter.
        what: the file, or the part of the model, that is being read or tried.
        remedy: what to do.
        outcome: what does not work, before the name.

    Raises:
        ModelError: with the first words of what the library said.
        MemoryError: a library's own way of saying that there is not enough.
    """
    try:
        yield
    except (UnlearnError, MemoryError, torch.OutOfMemoryError):
        raise
    except BaseException as problem:
        if not isinstance(problem, Exception) and not _panicked(problem):
            raise
        if ran_out(problem):
            raise MemoryError(str(problem)) from problem
        said = sentence(_words(problem), LONGEST).rstrip(".")
        # Libraries often name the file as well.
        where = "" if str(what) in said or str(what) == name else f"{what}: "
        raise ModelError(f"{outcome} {name!r}: {where}{said}; {remedy}") from problem


def _panicked(problem: BaseException) -> bool:
    # A library in Rust (tokenizers, safetensors) that gives up raises what derives from BaseException.
    return type(problem).__module__ == "pyo3_runtime"


def _words(problem: BaseException) -> str:
    words = str(problem) or type(problem).__name__
    bare = isinstance(problem, KeyError) and " " not in words
    return f"{words} is missing, or a name that nobody knows" if bare else words
