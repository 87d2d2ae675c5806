"""The phases of an edit and its audit, each timed by itself beside the plain and the published way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import reference
from benchmarks.reference import System
from benchmarks.timing import Phase, Stopwatch, busy_of, counted, timed
from unlearn.audit import pipeline
from unlearn.audit.agreement import by_transformers
from unlearn.edit import forms
from unlearn.edit.choose import options, settle
from unlearn.edit.corpus import Corpus
from unlearn.edit.depth import placed, told_apart
from unlearn.edit.pipeline import edit
from unlearn.edit.reading import LONGEST
from unlearn.edit.statistics import key_statistics
from unlearn.errors import UnlearnError
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import text_ids
from unlearn.model.forward import read
from unlearn.model.machine import matrix_rate
from unlearn.model.prompts import plain_prompt
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.store import Store

FEW = 4
"""Rows, prompts or documents on which the plain way is timed, and multiplied up."""
GROWTH = (10, 1000)
"""Earlier edits, between which the cost of one more is compared."""
REPLY = 24
WIDEST = {"cpu": 1024, "cuda": 16384}
"""Of a dense solve, by device; wider ones are multiplied up by the cube of the width."""
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

    def timed(self, work: Callable[[], Any]) -> tuple[Any, Phase]:
        """What some work makes, and what it takes."""
        return timed(work, self.model.device)

    def busy(self, work: Callable[[], object]) -> float:
        """Busy seconds that some work takes."""
        return busy_of(work, self.model.device)

    def products(self, work: Callable[[], object]) -> float:
        """Seconds that the products of some work would take at this machine's own rate in the model's dtype."""
        return counted(work) / self.rate

    @cached_property
    def rate(self) -> float:
        """FLOP/s."""
        return matrix_rate(self.model.dtype, self.model.device)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """That the policy's method writes."""
        return placed(self.model, self.settings, partial(told_apart, self.model, self.requests)).layers

    @cached_property
    def settings(self) -> Any:
        """Of the policy's method, no number `auto`."""
        policy = self.requests.policy
        return settle(self.model, policy, options(policy.method)[0], self.requests.facts)

    @cached_property
    def rows(self) -> list[list[forms.Row]]:
        """Per fact, its prompts with their targets, each with one look-up token."""
        laid = forms.build(self.model, self.requests, self.requests.facts, "subject", False)
        asked = [row for row in laid.rows if not row.keep and row.sites]
        return [[row for row in asked if row.request == n] for n in range(len(self.requests.facts))]

    @cached_property
    def every(self) -> list[forms.Row]:
        """The same, fact after fact."""
        return [row for mine in self.rows for row in mine]

    @cached_property
    def first(self) -> First:
        """The first edit."""
        watch, again = Stopwatch(self.model.device), partial(edit, self.model, self.requests, self.cache)
        patch, whole = self.timed(lambda: again(watch))
        rest = whole.busy - sum(watch.busy[name] for name in READ_ONCE)
        whole = whole.beside(rest, share=self.products(again), published=self.theirs["total"])
        steps = {**watch.seconds, "other": whole.seconds - watch.seconds.total()}
        said = whole.saying(steps=steps, rounds=dict(watch.times), busy_without_statistics=rest)
        return First(patch, said, watch)

    @cached_property
    def theirs(self) -> dict[str, float]:
        """Seconds of the published procedure."""
        kept = [plain_prompt(self.model.tokenizer, f"{f.subject} is a").ids for f in self.requests.facts]
        steps = self.settings.steps if isinstance(self.settings.steps, int) else 25
        return reference.seconds(self.model, self.rows, kept, self.layers, steps, self.sample)


def edited(bench: Bench) -> Phase:
    """The edit with an empty cache; arithmetic is counted in a second one, which reads no statistics."""
    return bench.first.whole


def values(bench: Bench) -> Phase:
    """The optimisation of all values in that edit."""
    watch = bench.first.watch
    if "values" not in watch.seconds:
        raise UnlearnError(f"{bench.settings.name} optimises no values; time them with --method alphaedit")
    return Phase(watch.seconds["values"], watch.busy["values"]).beside(published=bench.theirs["values"])


def trained(bench: Bench) -> Phase:
    """The trained update, over so many steps; the statistics come from the cache."""
    method = {"name": "null_space_tuning", "steps": bench.steps}
    data = {**bench.requests.policy.model_dump(), "method": method}
    requests = replace(bench.requests, policy=type(bench.requests.policy).model_validate(data))
    work = partial(edit, bench.model, requests, bench.cache)
    work()  # reads what statistics are missing
    watch = Stopwatch(bench.model.device)
    _, phase = bench.timed(lambda: work(watch))
    return phase.beside(share=bench.products(work)).saying(steps=bench.steps, parts=dict(watch.seconds))


def keys(bench: Bench) -> Phase:
    """Keys at the look-up tokens of all prompts, at all layers."""
    rows, some = bench.every, bench.every[:FEW]
    sites = [[at for _, at in row.sites] for row in rows]
    ours = partial(read, bench.model, [row.ids for row in rows], sites, list(bench.layers))
    ours()
    _, phase = bench.timed(ours)
    plain = bench.busy(lambda: _one_by_one(bench, some, bench.layers[0]))
    plain *= len(rows) / len(some) * len(bench.layers)
    theirs = bench.theirs["keys"]
    return phase.beside(share=bench.products(ours), plain=plain, published=theirs).saying(rows=len(rows))


def _one_by_one(bench: Bench, rows: list[forms.Row], layer: int) -> Tensor:
    return torch.cat([reference.keys_of(bench.model, [row], layer) for row in rows], 1)


def solve(width: int, bench: Bench) -> Phase:
    """The update for 100 edits after 1,000 earlier ones, on random numbers of a width."""
    device = bench.model.device
    ours = System.random(width, device).fast
    ours()
    _, phase = bench.timed(ours)
    within = min(width, WIDEST[device.type])
    some, larger = System.random(within, device), (width / within) ** 3
    projector, kept = some.projector(), some.earlier @ some.earlier.T
    return phase.beside(
        share=counted(ours) / matrix_rate(torch.float32, device),
        plain=larger * bench.busy(some.plain),
        published=larger * bench.busy(lambda: reference.solved(some.keys, some.gains, projector, kept)),
    ).saying(dense_at=within)


def statistics(bench: Bench) -> Phase:
    """Second moments and null spaces of all layers, nothing of them in a cache."""
    model, layers = bench.model, list(bench.layers)
    corpus = Corpus.of(bench.requests.policy, bench.model)
    ours = partial(key_statistics, model, layers, corpus, bench.tokens)
    found, phase = bench.timed(ours)
    tokens = next(iter(found.values())).tokens
    longest = min(LONGEST, model.context)
    rows = [text_ids(model.tokenizer, text)[:longest] for text in islice(corpus.documents(), FEW)]
    plain = bench.busy(lambda: reference.second_moment(model, rows, layers[0]))
    plain *= tokens / sum(map(len, rows)) * len(layers)
    return phase.beside(share=bench.products(ours), plain=plain).saying(
        tokens=tokens, layers=len(layers), seconds_per_million_tokens=phase.seconds * 1e6 / tokens
    )


def audited(bench: Bench) -> Phase:
    """The audit of the policy's suite, of the unedited and the edited model; and replies, asked one by one instead."""
    patch, prompts = bench.first.patch, [row.prompt for row in bench.every]
    _, phase = bench.timed(lambda: pipeline.audit(bench.model, patch, bench.requests))
    ours = partial(bench.model.generate_ids, prompts, REPLY)
    busy = bench.busy(ours)
    plain = bench.busy(lambda: [by_transformers(bench.model, ids, REPLY) for ids in prompts[:FEW]])
    plain *= len(prompts) / len(prompts[:FEW])
    return phase.beside(busy, share=bench.products(ours), plain=plain).saying(
        suite=bench.requests.policy.audit.suite, replies=len(prompts), replies_busy=busy
    )


def growth(bench: Bench) -> Phase:
    """One more edit after few and after many earlier ones, whose keys are kept: ``ratio`` is what it costs more."""
    took, patch = [], bench.first.patch
    for earlier in GROWTH:
        torch.manual_seed(0)
        state = {
            name: torch.randn(len(kept), min(earlier, len(kept))) * float(kept.std())
            for name, kept in patch.state.items()
        }
        before = replace(patch, state=state)
        took.append(bench.timed(partial(edit, bench.model, bench.requests, bench.cache, earlier=before))[1])
    few, many = (phase.busy for phase in took)
    return took[-1].saying(ratio=many / few, earlier=list(GROWTH), busy_of_each=[few, many])


def parity(bench: Bench) -> Phase:
    """Relative differences between the fast and the plain way, and the share of equal replies."""
    apart, phase = bench.timed(lambda: _parity(bench))
    return phase.saying(**apart)


def _parity(bench: Bench) -> dict[str, float]:
    model, layer, some = bench.model, bench.layers[-1], bench.every[: 2 * FEW]
    fast = read(model, [row.ids for row in some], [[row.sites[0][1]] for row in some], [layer]).keys[layer]
    random, prompts = System.random(512, torch.device("cpu")), [row.prompt for row in some]
    together = model.generate_ids(prompts, REPLY)
    alone = [model.ends.until(by_transformers(model, ids, REPLY)) for ids in prompts]
    same = sum(one == tuple(other) for one, other in zip(alone, together, strict=True))
    return {
        "keys": _apart(fast, _one_by_one(bench, some, layer)),
        "solve": _apart(random.fast().double(), random.plain()),
        "replies": same / len(prompts),
    }


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


PHASES: Mapping[str, Callable[[Bench], Phase]] = {
    "edit": edited,
    "values": values,
    "train": trained,
    "keys": keys,
    "solve_4096": partial(solve, 4096),
    "solve_14336": partial(solve, 14336),
    "statistics": statistics,
    "audit": audited,
    "growth_10_to_1000": growth,
    "parity": parity,
}
"""By name."""
