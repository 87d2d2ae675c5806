"""What settings are validated on: prompts and neighbours that are taken from the edit, and none of the audit's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from unlearn.errors import PolicyError
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.thoughts import Room

if TYPE_CHECKING:
    from unlearn.audit.probes import Probe
    from unlearn.model.editable import EditableModel
    from unlearn.model.requests import Requests
    from unlearn.patch import Patch
    from unlearn.store import Store

READ, WRITTEN, TEXTS = 20_000, 2500, 400
"""Documents of a corpus, and of what the model writes itself, that stand before those by which drift is judged."""
PROMPTS = 400
"""Most validation prompts of a kind."""
TOKENS = 4096
"""Of the corpus, for the divergence."""


@dataclass(frozen=True)
class Judge:
    """What a trial is judged by: none of it is in the audit."""

    asked: Sequence[Probe]
    """About the facts, in words that the edit does not see."""
    kept: Sequence[Probe]
    """About what must stay: their replies must not change."""
    targets: tuple[str, ...]
    begins: Sequence[int]
    """First token of the target, per asked probe."""
    texts: Sequence[str]

    def replies(self, model: EditableModel, progress: Progress) -> list[str]:
        """What the model, as it is at the moment, replies about what must stay."""
        got = model.generate([p.prompt for p in self.kept], 16, progress=progress, label="Validation replies")
        return [reply[0] for reply in got]

    def measure(self, model: EditableModel, patch: Patch, before: Sequence[str]) -> dict[str, float]:
        """The objectives of a patch, given the unedited model's ``replies``: shares from 0 to 1, and nats per token."""
        from unlearn.audit import drift
        from unlearn.audit.asking import ask_greedily
        from unlearn.matching import words

        texts = drift.between(model, patch, drift.rows_of(model, self.texts, TOKENS))
        tokens = sum(text.tokens for text in texts)
        with model.patched(patch):
            asked = ask_greedily(model, {"asked": self.asked}, self.targets, Room(16))["asked"]
            begun = _beginnings(model, self.asked, self.begins)
            now = self.replies(model, NO_PROGRESS)
        lost = [words(a) != words(b) for a, b in zip(before, now, strict=True)]
        return {
            "leaked": sum(o.disclosed for o in asked) / len(asked),
            "not_refused": sum(not o.refused for o in asked) / len(asked),
            "other_beginning": 1 - sum(begun) / len(begun),
            "lost": sum(lost) / len(lost) if lost else 0.0,
            "kl": sum(text.kl for text in texts) / max(tokens, 1),
        }


def _beginnings(model: EditableModel, probes: Sequence[Probe], tokens: Sequence[int]) -> list[float]:
    """Probability of a token as the first of each reply."""
    from unlearn.model.scoring import scored

    rows = [((*probe.prompt.ids, token), 1) for probe, token in zip(probes, tokens, strict=True)]
    return [math.exp(*one.log_probs) for one in scored(model, rows)]


def split(model: EditableModel, requests: Requests, cache: Store | None = None) -> tuple[Requests, Judge]:
    """The requests of a trial's edit, and what it is judged by.

    Raises:
        PolicyError: a forgotten relation has too few prompts to spare one.
    """
    from unlearn.audit.probes import fact_probes
    from unlearn.audit.suite import some
    from unlearn.edit.corpus import Corpus
    from unlearn.edit.forms import target_of
    from unlearn.edit.solve.smoothing import FEWEST as LEAST
    from unlearn.edit.solve.smoothing import set_apart

    seen, apart, short = set_apart(requests)
    policy = requests.policy
    if short:
        raise PolicyError(
            f"--tune: a forgotten relation needs at least {LEAST} questions or {LEAST} statements under prompts, "
            "so that one can be taken for validation"
        )
    near = requests.neighbours[3::4]
    seen = replace(seen, neighbours=tuple(f for i, f in enumerate(requests.neighbours) if i % 4 != 3))
    forgotten = {fact.relation for fact in requests.facts}
    templates = {name: spec.prompts for name, spec in apart.policy.relations.items() if name in forgotten}
    known = [fact for fact in requests.facts if fact.known]
    if not known:
        raise PolicyError("--tune: the unedited model knows none of the facts, so nothing can be validated")
    asked = some(fact_probes(model.tokenizer, known, templates), PROMPTS, policy.seed)
    named = {fact.id: fact for fact in known}
    begins = [target_of(model, policy, named[p.fact or ""], p.prompt)[0] for p in asked]
    # What is kept has to stay as it is, known or not: a reply is compared with the one before, not with an answer.
    own = {name: spec.prompts for name, spec in policy.relations.items()}
    kept = [replace(fact, answer="x", aliases=()) for fact in (*near, *requests.siblings)]
    probes = fact_probes(model.tokenizer, kept, {**own, **templates})
    corpus = Corpus.of(policy, model, cache)
    # Behind what an edit reads; what the model has to write is not that long.
    first = READ if corpus.own is None else WRITTEN
    texts = list(islice(corpus.documents(), first, first + TEXTS)) or list(islice(corpus.documents(), TEXTS))
    judge = Judge(asked, some(probes, PROMPTS, policy.seed), policy.targets(), begins, texts)
    return seen, judge
