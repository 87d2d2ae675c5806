"""The text behind the key statistics, as a stream: the model's own, the embedded world's, files, or a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from itertools import tee
from pathlib import Path

from unlearn import embedded
from unlearn.edit.own_text import CHATS, REPLY, TURN, own_text
from unlearn.embedded.version import version
from unlearn.errors import PolicyError, UnlearnError
from unlearn.files import exists, opened, stream_lines, text_in
from unlearn.matching import contains, words
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.policy import EMBEDDED, OWN, Policy
from unlearn.store import Store

_WHAT = "statistics.corpus:"


@dataclass(frozen=True)
class Corpus:
    """A named stream of documents that can be read again and again."""

    name: str
    """`embedded`, `own`, a path, or a `datasets` name."""
    own: Iterator[str] | None = field(default=None, compare=False)
    """For `own` what the model writes, from its beginning: a ``tee``, of which copies draw nothing twice."""

    @classmethod
    def of(cls, policy: Policy, model: EditableModel, cache: Store | None = None) -> Corpus:
        """As a policy says; the cache keeps what the model writes for `own`."""
        name = policy.statistics.corpus
        if name == "auto":
            name = EMBEDDED if policy.model == EMBEDDED else OWN
        return cls(name, tee(own_text(model, cache), 1)[0] if name == OWN else None)

    def documents(self) -> Iterator[str]:
        """The documents, always in the same order.

        Raises:
            UnlearnError: the corpus cannot be found or read, or a line of it holds no text.
        """
        if self.name == EMBEDDED:
            return embedded.documents("train", seed=1)
        if self.own is not None:
            return copy(self.own)
        path = Path(self.name)
        if exists(path):
            return _files(path)
        if path.suffix in (".txt", ".jsonl") or self.name.startswith((".", "/", "~")):
            raise UnlearnError(f"statistics.corpus: there is no file or folder {self.name}")
        return _dataset(self.name)

    def fingerprint(self) -> str:
        """A hash of what the stream holds: the files' bytes, or the name and this program's version of it.

        What a model writes hangs on the model alone.
        """
        path = Path(self.name)
        digest = hashlib.sha256(self.name.encode())
        if self.name == EMBEDDED:
            digest.update(version().encode())
        elif self.own is not None:
            digest.update(f"{CHATS}/{TURN}/{REPLY}".encode())
        elif exists(path):
            digest = hashlib.sha256()
            for file in _members(path):
                digest.update(file.name.encode())
                with opened(file, _WHAT) as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
        return digest.hexdigest()


PATIENCE = 5000
"""Documents in a row that name what must not be seen: of text that a model writes there is no end."""


def names(requests: Requests) -> set[str]:
    """Subjects of the policy, and the neighbours that only the audit asks about: the edit must not see them."""
    return {fact.subject for fact in (*requests.facts, *requests.held_out_neighbours)}


def named_in(text: str, names: Iterable[str]) -> bool:
    """Whether a text names any of these, as whole words: the "US" in "USA" is none.

    What cannot be there is known by its letters alone, which is much quicker to see.
    """
    letters = "".join(words(text))
    return contains(text, [name for name in names if "".join(words(name)) in letters])


def unnamed(requests: Requests, corpus: Corpus) -> Iterator[str]:
    """Documents of the corpus that name no subject of the policy, nor what only the audit asks about (``names``).

    Raises:
        PolicyError: of very many documents each names one.
    """
    never, refused = names(requests), 0
    for document in corpus.documents():
        if not named_in(document, never):
            refused = 0
            yield document
        elif (refused := refused + 1) >= PATIENCE:
            raise PolicyError(
                f"statistics.corpus: each of {PATIENCE} documents in a row names a subject of the policy, or a "
                "held-out neighbour, so none is left to be kept as it is; give another corpus, or longer names"
            )


def _members(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.suffix in (".txt", ".jsonl"))
    if not found:
        raise UnlearnError(f"statistics.corpus: the folder {path} holds no .txt or .jsonl file")
    return found


def _files(path: Path) -> Iterator[str]:
    for file in _members(path):
        for number, line in enumerate(stream_lines(file, _WHAT), 1):
            if line.strip():
                yield text_in(line, f"{_WHAT} {file}:{number}") if file.suffix == ".jsonl" else line.strip()


def _dataset(name: str) -> Iterator[str]:
    from datasets import load_dataset

    owner, _, config = name.partition(":")
    try:
        stream = load_dataset(owner, config or None, split="train", streaming=True)
        for record in stream:
            yield record["text"]
    except KeyError:
        raise UnlearnError(f"statistics.corpus: the data set {name} has no `text` column") from None
    except Exception as problem:
        first = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise UnlearnError(
            f"statistics.corpus: cannot read the data set {name}: {first}; give a local .txt or .jsonl file instead"
        ) from None
