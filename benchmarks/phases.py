"""The phases of an edit and its audit, each timed by itself beside the plain and the published way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import plain, published
from benchmarks.solves import solve, ways
from benchmarks.timing import Phase, Rate, Stopwatch, busy_of, counted, timed
from unlearn.audit import pipeline
from unlearn.audit.agreement import by_transformers
from unlearn.edit import forms
from unlearn.edit.choose import options, settle
from unlearn.edit.corpus import Corpus
from unlearn.edit.depth import placed, told_apart
from unlearn.edit.pipeline import edit
from unlearn.edit.statistics import LONGEST, key_statistics
from unlearn.errors import UnlearnError
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import text_ids
from unlearn.model.forward import read
from unlearn.model.prompts import plain_prompt
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.store import Store

FEW = 4
"""Rows, prompts or documents on which the plain way is timed, and multiplied up."""
GROWTH = (10, 1000)
"""Earlier edits, between which the cost of one more is compared."""
REPLY = 24


READ_ONCE = ("key statistics", "null spaces")
"""Steps of an edit that later ones find in the cache; the published procedure is timed without them, too."""


class First(NamedTuple):
    """An edit whose statistics were not known yet."""

    patch: Patch
    whole: Phase
    watch: Stopwatch


@dataclass(frozen=True)
class Bench:
    """What is timed: a policy on a model."""

    model: EditableModel
    requests: Requests
    cache: Store
    tokens: int
    """Of the corpus behind the key statistics."""
    sample: int
    """Facts whose values are optimised in the published way."""
    steps: int
    """Of the trained update."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @cached_property
    def rate(self) -> Rate:
        """Of this machine in the model's dtype."""
        return Rate(self.model.dtype, self.device)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """That the policy's method writes."""
        return tuple(placed(self.model, self.settings, partial(told_apart, self.model, self.requests))[0])

    @cached_property
    def settings(self) -> Any:
        """Of the policy's method, no number `auto`."""
        policy = self.requests.policy
        return settle(self.model, policy, options(policy.method)[0], self.requests.facts)

    @cached_property
    def rows(self) -> list[list[forms.Row]]:
        """Per fact, its prompts with their targets, each with one look-up token."""
        laid = forms.build(self.model, self.requests, self.requests.facts, "subject", False)
        found: list[list[forms.Row]] = [[] for _ in self.requests.facts]
        for row in laid.rows:
            if not row.keep and row.sites:
                found[row.request].append(row)
        return found

    @cached_property
    def first(self) -> First:
        """The first edit."""
        watch, again = Stopwatch(self.device), partial(edit, self.model, self.requests, self.cache)
        patch, whole = timed(lambda: edit(self.model, self.requests, self.cache, watch), self.device)
        rest = whole.busy - sum(watch.busy.get(name, 0.0) for name in READ_ONCE)
        steps = {**watch.seconds, "other": whole.seconds - sum(watch.seconds.values())}
        whole = replace(
            whole, share=self.rate.share(counted(again), rest), published=self.theirs["total"] / rest
        ).saying(steps=steps, rounds=watch.times, busy_without_statistics=rest)
        return First(patch, whole, watch)

    @cached_property
    def theirs(self) -> dict[str, float]:
        """Seconds of the published procedure."""
        kept = [plain_prompt(self.model.tokenizer, f"{f.subject} is a").ids for f in self.requests.facts]
        steps = self.settings.steps if isinstance(self.settings.steps, int) else 25
        return published.seconds(self.model, self.rows, kept, self.layers, steps, self.sample)


def edited(bench: Bench) -> Phase:
    """The edit with an empty cache; arithmetic is counted in a second one, which reads no statistics."""
    return bench.first.whole


def values(bench: Bench) -> Phase:
    """The optimisation of all values in that edit."""
    seconds = bench.first.watch.seconds.get("values")
    if seconds is None:
        raise UnlearnError(f"{bench.settings.name} optimises no values; time them with --method alphaedit")
    busy = bench.first.watch.busy["values"]
    return Phase(seconds, busy, published=bench.theirs["values"] / busy)


def trained(bench: Bench) -> Phase:
    """The trained update, over so many steps; the statistics come from the cache."""
    method = {"name": "null_space_tuning", "steps": bench.steps}
    data = {**bench.requests.policy.model_dump(), "method": method}
    requests = replace(bench.requests, policy=type(bench.requests.policy).model_validate(data))
    edit(bench.model, requests, bench.cache)  # reads what statistics are missing
    watch = Stopwatch(bench.device)
    _, phase = timed(lambda: edit(bench.model, requests, bench.cache, watch), bench.device)
    flops = counted(lambda: edit(bench.model, requests, bench.cache))
    return replace(phase, share=bench.rate.share(flops, phase.busy)).saying(
        steps=bench.steps, parts=watch.seconds
    )


def keys(bench: Bench) -> Phase:
    """Keys at the look-up tokens of all prompts, at all layers."""
    rows = [row for mine in bench.rows for row in mine]
    ids, sites = [row.ids for row in rows], [[at for _, at in row.sites] for row in rows]
    ours = partial(read, bench.model, ids, sites, list(bench.layers))
    ours()
    _, phase = timed(ours, bench.device)
    some = rows[:FEW]
    one_by_one = busy_of(
        lambda: [plain.key_at(bench.model, row.ids, row.sites[0][1], bench.layers[0]) for row in some],
        bench.device,
    )
    return replace(
        phase,
        share=bench.rate.share(counted(ours), phase.busy),
        plain=one_by_one * len(rows) / len(some) * len(bench.layers) / phase.busy,
        published=bench.theirs["keys"] / phase.busy,
    ).saying(rows=len(rows))


def statistics(bench: Bench) -> Phase:
    """Second moments and null spaces of all layers, nothing of them in a cache."""
    corpus = Corpus.named(bench.requests.policy.statistics.corpus, bench.requests.policy.model)
    layers = list(bench.layers)
    found, phase = timed(lambda: key_statistics(bench.model, layers, corpus, bench.tokens), bench.device)
    tokens = next(iter(found.values())).tokens
    rows = list(_documents(bench.model, corpus, FEW))
    some = busy_of(lambda: plain.second_moment(bench.model, rows, layers[0]), bench.device)
    flops = counted(lambda: key_statistics(bench.model, layers, corpus, bench.tokens))
    return replace(
        phase,
        share=bench.rate.share(flops, phase.busy),
        plain=some * tokens / sum(map(len, rows)) * len(layers) / phase.busy,
    ).saying(tokens=tokens, layers=len(layers), seconds_per_million_tokens=phase.seconds * 1e6 / tokens)


def _documents(model: EditableModel, corpus: Corpus, most: int) -> Iterator[list[int]]:
    for _, document in zip(range(most), corpus.documents(), strict=False):
        yield text_ids(model.tokenizer, document)[: min(LONGEST, model.context)]


def audited(bench: Bench) -> Phase:
    """The audit of the policy's suite, of the unedited and the edited model; and replies, asked one by one instead."""
    patch = bench.first.patch
    _, phase = timed(lambda: pipeline.audit(bench.model, patch, bench.requests), bench.device)
    prompts = _prompts(bench)
    ours = busy_of(lambda: bench.model.generate_ids(prompts, REPLY), bench.device)
    some = prompts[:FEW]
    alone = busy_of(lambda: [by_transformers(bench.model, ids, REPLY) for ids in some], bench.device)
    flops = counted(lambda: bench.model.generate_ids(prompts, REPLY))
    return replace(
        phase, share=bench.rate.share(flops, ours), plain=alone * len(prompts) / len(some) / ours
    ).saying(suite=bench.requests.policy.audit.suite, replies=len(prompts), replies_busy=ours)


def _prompts(bench: Bench) -> list[tuple[int, ...]]:
    return [row.ids[: len(row.ids) - row.reply] for mine in bench.rows for row in mine]


def growth(bench: Bench) -> Phase:
    """One more edit after few and after many earlier ones, whose keys are kept: ``ratio`` is what it costs more."""
    took, patch = {}, bench.first.patch
    for earlier in GROWTH:
        torch.manual_seed(0)
        state = {
            name: torch.randn(len(kept), min(earlier, len(kept))) * float(kept.std())
            for name, kept in patch.state.items()
        }
        before = replace(patch, state=state)
        _, took[earlier] = timed(
            lambda before=before: edit(bench.model, bench.requests, bench.cache, earlier=before), bench.device
        )
    few, many = (took[earlier].busy for earlier in GROWTH)
    return took[GROWTH[-1]].saying(ratio=many / few, earlier=list(GROWTH), busy_of_each=[few, many])


def parity(bench: Bench) -> Phase:
    """Relative differences between the fast and the plain way, and the share of equal replies."""
    apart, phase = timed(lambda: _parity(bench), bench.device)
    return phase.saying(**apart)


def _parity(bench: Bench) -> dict[str, float]:
    layer, some = bench.layers[-1], [row for mine in bench.rows for row in mine][: 2 * FEW]
    fast = read(bench.model, [row.ids for row in some], [[row.sites[0][1]] for row in some], [layer]).keys[
        layer
    ]
    slow = torch.stack([plain.key_at(bench.model, row.ids, row.sites[0][1], layer) for row in some], 1)
    ours, dense = (way() for way in ways(512, torch.device("cpu")))
    prompts = _prompts(bench)[: 2 * FEW]
    together = bench.model.generate_ids(prompts, REPLY)
    alone = [by_transformers(bench.model, ids, REPLY) for ids in prompts]
    ends = bench.model.ends
    same = sum(ends.until(one) == tuple(other) for one, other in zip(alone, together, strict=True))
    return {
        "keys": _apart(fast, slow),
        "solve": _apart(ours.double(), dense),
        "replies": same / len(prompts),
    }


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


PHASES: Mapping[str, Callable[[Bench], Phase]] = {
    "edit": edited,
    "values": values,
    "train": trained,
    "keys": keys,
    "solve_4096": lambda bench: solve(4096, bench.device),
    "solve_14336": lambda bench: solve(14336, bench.device),
    "statistics": statistics,
    "audit": audited,
    "growth_10_to_1000": growth,
    "parity": parity,
}
"""By name."""
