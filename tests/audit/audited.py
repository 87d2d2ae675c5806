"""An audit of scripted models."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from tests.audit.scripted import Scripted, knows, requests
from unlearn.audit.pipeline import Findings, audit


def run(after: Callable[[str], str], seed: int = 0, **policy: object) -> Findings:
    candidate = partial(nullcontext, Scripted(after, seed))
    return audit(Scripted(knows), candidate, requests(**policy))
