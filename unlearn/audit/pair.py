"""What is measured on the unedited and the edited model together: text, weights and hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from unlearn.audit import cost, drift, hidden, scores
from unlearn.audit.suite import Suite
from unlearn.audit.text import first_tokens, held_out_rows, seen_by_the_statistics
from unlearn.errors import AuditError, ModelError
from unlearn.measurements import GROWTH, HIDDEN, NORM, ROWS, named
from unlearn.model.editable import EditableModel
from unlearn.model.ends import tokens_of
from unlearn.model.requests import Requests
from unlearn.model.thinking import ways
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.report import Drawing, Measurement

OTHER_VOCABULARY = (
    "the two models do not share a vocabulary, so their next-token distributions cannot be compared"
)
TEXT = tuple(row.name for row in ROWS if row.group == "text")
WEIGHTS = tuple(row.name for row in ROWS if row.group == "weights")
READ = frozenset(row.name for row in ROWS if row.interval == "texts")
"""For which the held-out text is read."""
ALIKE = "it was asked as the unedited model is, and elsewhere would not be"
"""Why what a candidate brings along besides its weights was not tested."""


@contextmanager
def asked_alike(base: EditableModel, edited: EditableModel) -> Iterator[tuple[str, ...]]:
    """Ask a candidate as the unedited model is asked, for as long as the block lasts: only its weights may differ.

    A patched model is left alone, since a guard in its tokenizer is part of the edit; and so is a candidate with
    another vocabulary, to which the unedited model's ids mean something else.

    Yields:
        What the candidate brings along and is not asked with, for a report's list of what was not tested.

    Raises:
        AuditError: its vocabulary is another one, and its chat template asks in other ways, with thoughts or without.
    """
    if edited is base or base.tokenizer.get_vocab() != edited.tokenizer.get_vocab():
        mine, other = ([way.name for way in ways(one.tokenizer)] for one in (base, edited))
        if mine != other:
            raise AuditError(
                "the candidate's chat template has other ways to think, or not to, than the unedited model's, so that "
                "replies cannot be compared; put the unedited model's tokenizer files into the candidate's folder"
            )
        yield ()
        return
    own = edited.tokenizer, edited.model.generation_config
    differs = {
        "chat template": (own[0].chat_template or None) != (base.tokenizer.chat_template or None),
        "end tokens": edited.ends != base.ends or bool(base.ends.tokens - tokens_of(own[1].eos_token_id)),
    }
    edited.tokenizer, edited.model.generation_config = base.tokenizer, base.model.generation_config
    try:
        yield tuple(f"the candidate's own {what} ({ALIKE})" for what, other in differs.items() if other)
    finally:
        edited.tokenizer, edited.model.generation_config = own


class Pair:
    """The unedited model, read while its weights are the original ones, and what the edited one is compared with.

    Attributes:
        rows: token ids of the held-out text.
        problem: why the next-token distributions cannot be compared on it; empty where they can.
    """

    def __init__(
        self, model: EditableModel, requests: Requests, suite: Suite, progress: Progress = NO_PROGRESS
    ) -> None:
        """Read what the suite needs of the unedited model."""
        self._model, self._requests, self._suite, self._progress = model, requests, suite, progress
        self._limits, self._seed = requests.policy.audit.limit, requests.policy.audit.seed
        self.rows: list[drift.Row] = []
        self.problem, self._about = "", ""
        self._wanted = {name for name in (*TEXT, *WEIGHTS, HIDDEN) if suite.makes(name)}
        if self._wanted & READ:
            try:
                self.rows, self._about = held_out_rows(model, requests, suite, progress)
            except AuditError as problem:
                self.problem = str(problem)
        # All layers, since which of them change is known only when the edited model is there; one vector per prompt.
        self._states: dict[int, dict[str, Tensor]] = {}
        self._unasked = ""
        if HIDDEN in self._wanted:
            try:
                self._states = hidden.states(
                    model, hidden.prompts(model, requests), range(model.anatomy.layers)
                )
            except (
                AuditError,
                ModelError,
            ) as problem:  # no file of benign questions, or a line of it that is too long
                self._unasked = str(problem)

    @property
    def compared_rows(self) -> list[drift.Row]:
        """The rows on which next-token distributions are compared: none where the suite does not ask for it."""
        return self.rows if self._wanted & set(TEXT) and not self.problem else []

    def other_vocabulary(self, edited: EditableModel) -> bool:
        """Whether the two models have different vocabularies; then their distributions are not compared."""
        mine, other = self._model, edited
        differs = (
            mine.vocabulary != other.vocabulary or mine.tokenizer.get_vocab() != other.tokenizer.get_vocab()
        )
        if differs:
            self.problem = self.problem or OTHER_VOCABULARY
        return differs

    def between(self, edited: EditableModel) -> tuple[cost.Change | None, dict[str, Measurement]]:
        """The change from the unedited to another model, and what is measured of it."""
        try:
            change = cost.change_between(self._model, edited)
        except AuditError as problem:
            return None, self._missing(WEIGHTS, str(problem))
        return change, self.weights(change)

    def weights(self, change: cost.Change) -> dict[str, Measurement]:
        """What is measured of the weights; the unedited model must be unpatched."""
        made = {}
        if NORM in self._wanted:
            made[NORM] = cost.norm(change, self._limits)
        if GROWTH in self._wanted:
            made[GROWTH] = cost.growth(change, self._limits)
        if cost.LEAKAGE in self._wanted:
            why = "" if self.rows else self.problem
            why = why or seen_by_the_statistics(self._requests) or ""
            if why:
                return made | self._missing([cost.LEAKAGE], why)
            rows = first_tokens(self.rows, self._suite.leakage_tokens)
            made[cost.LEAKAGE] = cost.leakage(
                self._model, change, rows, self._about, self._limits, self._seed, self._progress
            )
        return made

    def hidden(
        self, edited: EditableModel, change: cost.Change | None
    ) -> tuple[dict[str, Measurement], list[Drawing]]:
        """What is measured of the hidden states, and their picture."""
        if HIDDEN not in self._wanted:
            return {}, []
        if self._unasked:
            return self._missing([HIDDEN], self._unasked), []
        mine, other = self._model.anatomy, edited.anatomy
        if (mine.layers, mine.d_model) != (other.layers, other.d_model):
            why = "the two models have different depths or widths, so their hidden states cannot be compared"
            return self._missing([HIDDEN], why), []
        layers = cost.watched(self._model, change)
        before = {layer: self._states[layer] for layer in layers if layer in self._states}
        # With the edited model's own tokenizer: a guard that stands before every prompt is part of the edit.
        after = hidden.states(edited, hidden.prompts(edited, self._requests), layers)
        measured, drawings = hidden.drift_of_states(before, after, self._limits, self._seed)
        return {HIDDEN: measured}, drawings

    def text(self, texts: Sequence[drift.TextDrift]) -> dict[str, Measurement]:
        """drift.kl and drift.perplexity, as far as the suite makes them."""
        if self.problem or not texts:
            return self._missing(TEXT, self.problem or "there is no held-out text to compare on")
        found = scores.divergence(texts, self._limits, self._seed, self._about)
        return {name: measured for name, measured in found.items() if name in self._wanted}

    def _missing(self, names: Sequence[str], reason: str) -> dict[str, Measurement]:
        return {
            name: Measurement.missing(name, reason, self._limits(name), unit=named(name).unit)
            for name in names
            if name in self._wanted
        }
