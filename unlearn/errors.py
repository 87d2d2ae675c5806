"""Errors that a person can act on: one sentence that says what, where, and what to do.

Every error carries the exit code of the command that meets it. Anything else that is raised is a defect of
this program, not of its use.
"""

from __future__ import annotations

from collections.abc import Sequence


class UnlearnError(Exception):
    """The command could not run; the message is shown to the user as it stands.

    Examples:
        >>> import unlearn
        >>> try:
        ...     unlearn.load_policy("nowhere.yaml")
        ... except unlearn.UnlearnError as error:
        ...     print(error.exit_code, str(error).partition(";")[0])
        2 nowhere.yaml: no such file
    """

    exit_code = 1


class PolicyError(UnlearnError):
    """The policy, or the way the command was called, is wrong; nothing was loaded or written.

    Examples:
        >>> import unlearn
        >>> unlearn.load_policy("nowhere.yaml")
        Traceback (most recent call last):
        unlearn.errors.PolicyError: nowhere.yaml: no such file...
    """

    exit_code = 2


class PolicyProblems(PolicyError):
    r"""All problems of a policy, one a line, and how many they are.

    Examples:
        >>> import unlearn
        >>> try:
        ...     unlearn.load_policy("examples/forget.yaml", {"seed": "one", "method.name": "rmoe"})
        ... except unlearn.PolicyProblems as problems:
        ...     print(*problems.lines, sep="\n")
        --set method.name  unknown method `rmoe`; did you mean `rome`?
        --set seed         expected a whole number
        2 problems, nothing was loaded.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


class ModelError(UnlearnError):
    """A model cannot be loaded, belongs to an unknown family, or is not the one that was expected.

    Examples:
        >>> import unlearn
        >>> unlearn.load_model("examples")
        Traceback (most recent call last):
        unlearn.errors.ModelError: examples...
    """


class PatchError(UnlearnError):
    """A patch cannot be read, is not finite or too large, or does not belong to the model in hand.

    Examples:
        >>> import unlearn
        >>> unlearn.Patch.load("examples/forget.yaml")
        Traceback (most recent call last):
        unlearn.errors.PatchError: examples/forget.yaml cannot be read as a patch: ...
    """


class AuditError(UnlearnError):
    """An audit could not be carried out at all (a single failed measurement is a failed limit instead).

    Examples:
        >>> import unlearn
        >>> unlearn.Report.from_json("{}")
        Traceback (most recent call last):
        unlearn.errors.AuditError: this is not a valid report: ...
    """
