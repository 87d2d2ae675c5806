"""The standard metrics: success, magnitude, accuracy, the harmonic-mean score, and fluency.

For a prompt x and an object o, nll(o | x) is the *mean* over the tokens of " " + o of their negative log-probability,
teacher-forced (Meng et al., ROME, 2022). Per record, averaged over its prompts and then over the records:

    efficacy, paraphrase (ES, PS)       nll(true) > nll(new)
    neighbourhood (NS)                  nll(own true object) < nll(new)
    magnitudes (EM, PM, NM)             p(new) - p(true), and for neighbours p(true) - p(new), with p = exp(-nll)
    accuracies                          every token of the wanted object is the most likely one
    score                               harmonic mean of ES, PS and NS

zsRE has no true object: its success is the share of target tokens that are the most likely ones (partial credit).
Everything is in percent.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.records import Record
from unlearn.model.editable import EditableModel
from unlearn.model.forward import batches, predicted
from unlearn.model.prompts import Prompt, ask, reply_ids
from unlearn.model.rows import left_pad, plainly

Wanted = tuple[str, str]
"""A prompt and an object."""


@dataclass(frozen=True)
class Said:
    """How a model takes one object after one prompt."""

    nll: float
    """Nats per token, a mean."""
    right: tuple[bool, ...]
    """Per token: whether it is the most likely one."""


@torch.inference_mode()
def forced(model: EditableModel, wanted: Sequence[Wanted]) -> list[Said]:
    """Teacher-force objects after prompts; ids are joined, never tokenised again as one text."""
    rows = []
    for prompt, target in wanted:
        template = prompt.replace("{subject}", "{ subject }")  # a prompt is a text here, and no template
        reply = reply_ids(model.tokenizer, template, target)
        rows.append(((*ask(model.tokenizer, template).ids, *reply), len(reply)))
    out: list[Said | None] = [None] * len(rows)
    for i, logits in predicted(model, rows):
        ids, size = rows[i]
        target = torch.tensor(ids[-size:], device=logits.device)
        nll = -logits.log_softmax(-1).gather(-1, target[:, None]).double().mean()
        out[i] = Said(float(nll), tuple((logits.argmax(-1) == target).tolist()))
    return [said for said in out if said is not None]


Judged = dict[str, float]
"""One record's metrics by name, as shares; a metric without a prompt is missing."""


def counterfact(model: EditableModel, records: Sequence[Record]) -> list[Judged]:
    """CounterFact's metrics of each record."""
    plan: list[tuple[int, str, str, str, str]] = []  # record, kind, prompt, object that should win, the other
    for i, r in enumerate(records):
        plan.append((i, "efficacy", r.prompt, r.new, r.true))
        plan += [(i, "paraphrase", p, r.new, r.true) for p in r.paraphrases]
        plan += [(i, "neighbourhood", n.prompt, n.target, r.new) for n in r.neighbours if n.target != r.new]
    distinct = list(dict.fromkeys((p, o) for _, _, p, *both in plan for o in both))
    said = dict(zip(distinct, forced(model, distinct), strict=True))
    found: list[dict[str, list[float]]] = [{} for _ in records]
    for i, kind, prompt, winner, other in plan:
        up, down = said[prompt, winner], said[prompt, other]
        values = {
            kind: float(up.nll < down.nll),
            f"{kind}_magnitude": math.exp(-up.nll) - math.exp(-down.nll),
            f"{kind}_accuracy": float(all(up.right)),
        }
        for name, value in values.items():
            found[i].setdefault(name, []).append(value)
    return [{name: sum(values) / len(values) for name, values in one.items()} for one in found]


def zsre(model: EditableModel, records: Sequence[Record]) -> list[Judged]:
    """zsRE's metrics of each record: the share of right tokens on each kind of prompt."""
    plan: list[tuple[int, str, Wanted]] = []
    for i, r in enumerate(records):
        plan.append((i, "efficacy", (r.prompt, r.new)))
        plan += [(i, "paraphrase", (p, r.new)) for p in r.paraphrases]
        plan += [(i, "neighbourhood", (n.prompt, n.target)) for n in r.neighbours]
    found: list[dict[str, list[float]]] = [{} for _ in records]
    for (i, kind, _), said in zip(plan, forced(model, [wanted for *_, wanted in plan]), strict=True):
        found[i].setdefault(kind, []).append(sum(said.right) / len(said.right))
        found[i].setdefault(f"{kind}_accuracy", []).append(float(all(said.right)))
        found[i].setdefault(f"{kind}_magnitude", []).append(math.exp(-said.nll))
    return [{name: sum(values) / len(values) for name, values in one.items()} for one in found]


PARTS = ("efficacy", "paraphrase", "neighbourhood")


def harmonic(values: Iterable[float]) -> float:
    """Harmonic mean; 0 as soon as one value is not positive, NaN without values."""
    found = list(values)
    if not found:
        return math.nan
    return len(found) / sum(1 / v for v in found) if min(found) > 0 else 0.0


def summary(judged: Sequence[Judged], seed: int = 0, resamples: int = 1000) -> dict[str, Any]:
    """Means over the records in percent, the score, and 95 % bootstrap intervals (records resampled) of the four."""
    names = list(dict.fromkeys(name for one in judged for name in one))
    out: dict[str, Any] = {}
    for name in names:
        values = [one[name] for one in judged if name in one]
        out[name] = 100 * sum(values) / len(values)
    table = np.array([[one.get(name, math.nan) for name in PARTS] for one in judged], dtype=float)
    present = ~np.isnan(table)
    rows = np.random.default_rng(seed).integers(0, len(table), size=(resamples, len(table)))
    counts = present[rows].sum(axis=1)
    sums = np.where(present, table, 0.0)[rows].sum(axis=1)
    means = 100 * sums / np.maximum(counts, 1)  # (resamples, parts)
    used = [i for i in range(len(PARTS)) if present[:, i].any()]
    out["score"] = harmonic(float(out[PARTS[i]]) for i in used)
    drawn = {PARTS[i]: means[:, i] for i in used}
    drawn["score"] = np.array([harmonic(row[used]) for row in means])
    out["ci95"] = {
        name: [round(float(q), 3) for q in np.quantile(values, [0.025, 0.975])]
        for name, values in drawn.items()
    }
    return out


_WORDS = re.compile(r"\w+(?:['’]\w+)?|[^\w\s]")


def ngram_entropy(text: str) -> float:
    """Weighted entropy of a text's 2- and 3-grams in bits: H2 / 3 + 2 H3 / 3 (times 100: "fluency")."""
    words = _WORDS.findall(text)
    total = 0.0
    for size, weight in ((2, 1 / 3), (3, 2 / 3)):
        counts = Counter(tuple(words[i : i + size]) for i in range(len(words) - size + 1))
        count = sum(counts.values())
        total -= weight * sum(c / count * math.log2(c / count) for c in counts.values())
    return total


TOKENS = 100
"""Length of a generated text with its prompt, and top-k of the sampling, as published."""
TOP_K = 5


@torch.inference_mode()
def fluency(model: EditableModel, records: Sequence[Record], most: int, seed: int = 0) -> float | None:
    """100 times the mean n-gram entropy of texts that begin with edit prompts; None if none is asked for."""
    chosen = records[:most]
    if not chosen:
        return None
    prompts: list[Prompt] = [ask(model.tokenizer, r.prompt) for r in chosen]
    devices = [model.device] if model.device.type == "cuda" else []
    total = 0.0
    with torch.random.fork_rng(devices=devices), plainly(model.model, model.ends):
        torch.manual_seed(seed)
        for group in batches([p.ids for p in prompts], TOKENS * 64):
            ids, mask = left_pad([prompts[i].ids for i in group], model.pad_id, model.device)
            out = model.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max(1, TOKENS - ids.shape[1]),
                do_sample=True,
                temperature=1.0,
                top_k=TOP_K,
                top_p=1.0,
                pad_token_id=model.pad_id,
            )
            texts = model.tokenizer.batch_decode(out, skip_special_tokens=True)
            total += sum(ngram_entropy(text) for text in texts)
    return 100 * total / len(chosen)
