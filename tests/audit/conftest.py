"""A suite for the audits of scripted models."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.audit.scripted import SUITE
from unlearn.audit import observing, pipeline
from unlearn.audit.suite import Suite


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[[Suite], None]:
    """Audits use the tiny suite, or the one a test puts in its place."""

    def use(suite: Suite) -> None:
        for room in (pipeline, observing):
            monkeypatch.setattr(room, "load_suite", lambda _name: suite)

    use(SUITE)
    return use
