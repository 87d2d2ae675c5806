"""What a run reads, so that it writes nothing there."""

from __future__ import annotations

import os
from pathlib import Path

from unlearn.policy import EMBEDDED, Policy

NAMES = (EMBEDDED, "auto", "none")
"""What may stand in a policy for a model, and is not read from a folder of that name."""


def read_by(policy: Policy, file: Path, *others: Path | str | None) -> tuple[Path | str | None, ...]:
    """What a command reads, so that it writes nothing there: the policy's file, what that names, and others."""
    audit = policy.audit
    files = (policy.statistics.corpus, audit.suite, audit.text, audit.benign, audit.lookalike, *audit.tasks)
    return (
        file,
        *(name for name in files if os.path.isfile(name)),
        *(
            name
            for name in (policy.model, policy.tokenizer, audit.control, audit.toxicity, audit.task_path)
            if name not in NAMES
        ),
        *others,
    )
