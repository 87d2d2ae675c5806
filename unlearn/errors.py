"""Errors that a person can act on: one sentence that says what, where, and what to do.

Every error carries the exit code of the command that meets it. Anything else that is raised is a defect of
this program, not of its use.
"""

from __future__ import annotations

from collections.abc import Sequence


class UnlearnError(Exception):
    """The command could not run; the message is shown to the user as it stands."""

    exit_code = 1


class PolicyError(UnlearnError):
    """The policy, or the way the command was called, is wrong; nothing was loaded or written."""

    exit_code = 2


class PolicyProblems(PolicyError):
    """All problems of a policy, one a line, and how many they are."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


class ModelError(UnlearnError):
    """A model cannot be loaded, belongs to an unknown family, or is not the one that was expected."""


class PatchError(UnlearnError):
    """A patch cannot be read, is not finite or too large, or does not belong to the model in hand."""


class AuditError(UnlearnError):
    """An audit could not be carried out at all (a single failed measurement is a failed limit instead)."""
