"""The journal of a search of `--tune`, sealed in the store like everything that a later run believes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

from optuna.storages.journal import BaseJournalBackend

from unlearn.files import JsonObject
from unlearn.store import Store

log = logging.getLogger("unlearn")


class Journal(BaseJournalBackend):
    """The log of one study in one file, which is written anew with every entry.

    Of two processes that go on with one search at once, each sees its own trials, and the last one's are kept.
    """

    def __init__(self, store: Store, name: str) -> None:
        """Read what an earlier search has left under this name."""
        self._store, self._name = store, name
        content = store.find(name)
        self._logs: list[JsonObject] = [] if content is None else json.loads(bytes(content))
        self._kept = True

    def read_logs(self, log_number_from: int) -> Iterable[JsonObject]:
        """The entries from this number on."""
        return self._logs[log_number_from:]

    def append_logs(self, logs: list[JsonObject]) -> None:
        """Add entries, and keep them as long as the place takes them."""
        self._logs += logs
        if self._kept and not self._store.keep(self._name, json.dumps(self._logs).encode()):
            self._kept = False
            log.warning(
                "the search cannot be kept in %s, and will not go on from where it ends", self._store.folder
            )
