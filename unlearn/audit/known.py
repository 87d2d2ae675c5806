"""Whether an audit can be made as a policy asks for it: looked at before any work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unlearn.audit.suite import Suite, load_suite
from unlearn.audit.tasks import known_tasks
from unlearn.errors import AuditError, PolicyError
from unlearn.policy import Policy


def known_audit(policy: Policy, whole: bool = True) -> None:
    """Refuse an audit that cannot be made as it stands there, before any work is done.

    Args:
        policy: for its `audit`: the suite, tasks, and files of questions and text.
        whole: look into the files of questions and text, too; takes torch.

    Raises:
        PolicyError: the suite or a file cannot be read, or one of them names what is not measured.
    """
    audit = policy.audit
    suite = known_suite(audit.suite)
    with _as_problem_of("audit.tasks"):
        known_tasks(audit)
    if not whole:
        return
    from unlearn.audit.drift import read_texts
    from unlearn.audit.lookalike import lookalike_lines
    from unlearn.audit.probes import benign_lines

    # Drift is measured on replies to the benign questions too.
    readers: tuple[tuple[bool, str, str, Callable[[str], object]], ...] = (
        (suite.asks("benign") or suite.makes("drift"), "benign", audit.benign, benign_lines),
        (suite.asks("lookalike"), "lookalike", audit.lookalike, lookalike_lines),
        (suite.makes("drift"), "text", audit.text, read_texts),
    )
    for needed, key, file, read in readers:
        if needed and file != "auto":
            with _as_problem_of(f"audit.{key}"):
                read(file)


def known_suite(name: str) -> Suite:
    """Return a suite, or refuse one that is none.

    Args:
        name: `audit.suite`.

    Raises:
        PolicyError: it cannot be read, or names what is not measured.
    """
    with _as_problem_of("audit.suite"):
        return load_suite(name)


@contextmanager
def _as_problem_of(key: str) -> Iterator[None]:
    try:
        yield
    except AuditError as problem:
        raise PolicyError(f"{key}: {problem}") from None
