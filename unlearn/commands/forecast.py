"""About how long an edit and its audit will take, and how much memory: what is counted, times what it costs.

Passes are counted in tokens through all blocks, solves in operations. What ends early where it converges is counted to
its end, and named so. The same count is arithmetic (FLOP), and seconds: at the model's speed, measured in two short
runs, or at a rate of arithmetic where there is nothing to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from unlearn.audit import drift
from unlearn.audit.cache import Paces
from unlearn.audit.control import states_of
from unlearn.audit.estimate import READ_ROW, SAID, Speed, estimate, speed_of
from unlearn.audit.suite import Suite, load_suite
from unlearn.edit.own_text import steps_of
from unlearn.edit.plan import Plan
from unlearn.edit.settings import ClosedForm, Tuning, retained
from unlearn.edit.statistics import DECOMPOSING, tokens_of
from unlearn.edit.train.seen import front_of
from unlearn.edit.train.taught import (
    AGAIN,
    ASKED,
    DOCUMENTS,
    FORMS,
    KEPT,
    MANY,
    READ,
    SHORT,
    TEXTS,
    TOKENS,
)
from unlearn.edit.train.taught import SAID as TAUGHT
from unlearn.model.budget import block_each, logits_each, token_budget
from unlearn.model.editable import EditableModel
from unlearn.model.generation import MOST, batch_tokens, kept_bytes
from unlearn.model.machine import SIZE, matrix_rate
from unlearn.model.memory import of_weights, taken
from unlearn.model.offload import numbers as numbers_of
from unlearn.model.outline import Outline
from unlearn.model.prompts import has_chat_template
from unlearn.model.requests import Requests
from unlearn.policy.settings import UltraEdit
from unlearn.policy.settings_trained import Guard, Nothing, RepSelect
from unlearn.store import Store, cache_folder

REPLY = 24
"""Most tokens of a reply; the usual reply has half of them."""
USUAL = 12
"""Tokens of a reply that is written, trained or kept."""
EIGEN = 25
"""Operations of an eigen-decomposition per cubed width, at the rate of a product."""
WIDE = 4096
"""Rows and columns of the matrices by which a GPU's rate is measured."""


class Size(NamedTuple):
    """What an edit reads, in rows and tokens."""

    rows: int
    """Prompts to be forgotten."""
    each: float
    """Their tokens, with a reply, on average."""
    asked: int
    """All prompts that are asked for their answers: those to be forgotten, and kept ones."""

    @classmethod
    def of(cls, lengths: Sequence[int], asked: int) -> Size:
        """Of prompts with so many tokens each."""
        return cls(len(lengths), sum(lengths) / max(len(lengths), 1) + USUAL, asked)


class Cost(NamedTuple):
    """What each thing costs that is counted: operations (FLOP), or seconds."""

    tokens: Speed
    """Of tokens that are said, and that are read through all blocks."""
    solved: float
    """Of an operation of a float64 product."""
    paces: Paces
    """Seconds of audits of the same model, where they are what it costs; otherwise it knows nothing."""


def arithmetic(model: EditableModel) -> Cost:
    """FLOP: two per weight and token, whether it is said or read; before it is said, a prompt is read."""
    read = 2.0 * numbers(model)
    return Cost(Speed(read * (1 + READ_ROW / SAID), read), 1.0, Paces(None, model.name, model.device.type))


def at_rate(model: EditableModel, rate: float) -> Cost:
    """Seconds, if products are computed at so many FLOP/s throughout: the least that it takes.

    What is solved in float64 takes its time on this machine.
    """
    counted = arithmetic(model)
    tokens = Speed(counted.tokens.said / rate, counted.tokens.read / rate)
    return Cost(tokens, 1 / rate_of(model, torch.float64), counted.paces)


def at_speed(model: EditableModel, requests: Requests) -> Cost:
    """Seconds, at the speed of two short runs of the model, and of earlier audits of it."""
    paces = Paces(Store.existing(cache_folder()), requests.policy.model, model.device.type)
    return Cost(speed_of(model, requests), 1 / rate_of(model, torch.float64), paces)


def rate_of(model: EditableModel, dtype: torch.dtype) -> float:
    """FLOP/s of products on a model's device, measured."""
    return matrix_rate(dtype, model.device, SIZE if model.device.type == "cpu" else WIDE)


def costs(model: EditableModel, chosen: Plan, requests: Requests, size: Size, cost: Cost) -> dict[str, float]:
    """What every step costs, in the unit of ``cost``.

    Args:
        chosen: the plan.
        requests: for the audit.
        size: of the edit.
    """
    policy = requests.policy
    audit = estimate(requests, load_suite(policy.audit.suite), states_of(policy), cost.paces, cost.tokens)
    read, solved = _edit(model, chosen, size)
    # What the cache has is not read again; but texts to train on and hard negatives come from the corpus in any case.
    keys = tokens_of(policy, model) if chosen.reads_corpus and not chosen.statistics else 0
    read["statistics"] = keys * per_token(model, chosen.layers) if keys else 0.0
    solved["statistics"] = (
        EIGEN * len(chosen.layers) * model.anatomy.experts * model.anatomy.width**3 if keys else 0.0
    )
    steps = {
        name: read.get(name, 0.0) * cost.tokens.read + solved.get(name, 0.0) * cost.solved
        for name in read | solved
    }
    if chosen.corpus.own is not None:
        written = keys or _negatives(chosen) or int("training" in steps)
        steps["statistics"] += _said(written, steps_of(written), cost.tokens)
    asked = size.asked * max(size.each - USUAL - len(front_of(model)), 1) * cost.tokens.read
    together = REPLY * -(-size.asked // MOST)
    return {
        "statistics": steps.pop("statistics"),
        "answers": asked + _said(size.asked * REPLY // 2, together, cost.tokens),
        **steps,
        "audit": audit.total or 0.0,
    }


def _said(tokens: int, steps: int, speed: Speed) -> float:
    """What it costs to say tokens, so many steps of a batch."""
    return tokens * speed.read if speed.step is None else steps * speed.step


def memory(
    chosen: Plan, model: EditableModel, suite: Suite, lengths: Sequence[int], asked: int
) -> dict[str, int]:
    """Bytes at the peak of every step on the model's device, the model included; on a CPU the program itself is, too.

    Args:
        chosen: the plan.
        model: which is part of it.
        suite: of the audit.
        lengths: tokens of the prompts to be forgotten.
        asked: prompts that are asked for their answers, one key each.
    """
    held = taken(model.device) + (of_weights(model.model, model.dtype) if isinstance(model, Outline) else 0)
    copies = 2 * 4 * model.anatomy.d_ff * model.anatomy.d_model * len(chosen.layers)
    steps = {"loading": held}
    if chosen.reads_corpus:
        steps["statistics"] = held + block_each(model) * token_budget(model)
    if chosen.layers:
        steps["edit"] = held + copies + _edited(chosen, model, lengths, asked)
    said = kept_bytes(model.model) * batch_tokens(model.model, max(lengths, default=0) + suite.max_new_tokens)
    read = 4 * min(drift.MEMORY, logits_each(model) // 4 * suite.text_tokens) if suite.makes("drift") else 0
    return {**steps, "audit": held + copies + max(said, read)}


def statistics(chosen: Plan, model: EditableModel) -> tuple[int, int]:
    """Bytes of the key statistics: on the host while they are decomposed, and in the cache's files."""
    layers = len(chosen.layers) if chosen.reads_corpus else 0
    matrix = 8 * moments(model)
    # float64: the sum, its average, and the eigenvectors with their work space; of the others two matrices each.
    return (DECOMPOSING + 2 * layers) * matrix if layers else 0, 2 * layers * matrix


def _edited(chosen: Plan, model: EditableModel, lengths: Sequence[int], asked: int) -> int:
    """Bytes that an edit takes beside the model: activations, logits and keys."""
    anatomy, layers = model.anatomy, len(chosen.layers)
    # What a backward pass through the blocks keeps: roughly sixteen vectors of the stream's width per token.
    above = anatomy.layers - min(chosen.layers)
    tokens = min(sum(lengths) + USUAL * len(lengths), token_budget(model, gradients=True))
    activations = 16 * 4 * anatomy.d_model * above * tokens
    logits = logits_each(model) * USUAL * min(len(lengths), FORMS + KEPT)
    # Those of one layer are solved for, those of hard negatives wait at all of them.
    keys = 3 * 8 * anatomy.d_ff * asked + 8 * anatomy.d_ff * layers * _negatives(chosen)
    return activations + logits + keys


def _edit(model: EditableModel, chosen: Plan, size: Size) -> tuple[dict[str, float], dict[str, float]]:
    """By step of the edit, tokens through all blocks, and operations of float64 products."""
    match chosen.algorithm:
        case Tuning() as tuning:
            steps = tuning.steps * per_step(model, chosen.layers, size)
            return {"training": _lessons(model, tuning.steps, size) + steps}, {}
        case ClosedForm() as form:
            return _closed(model, chosen, form, size)
        case UltraEdit():  # forward and back, and then a solve per layer
            return {"writing": 3 * size.rows * size.each}, {
                "writing": _solves(model, chosen, size.rows * USUAL)
            }
        case RepSelect() as asked:  # an adversary and a gradient, and then looks at all rows, kept ones twice
            looks = asked.steps * (size.rows + 2 * asked.kept)
            return {"values_at_most": (3 * (asked.elicit + 1) * size.rows + looks) * size.each}, {}
        case Guard() | Nothing():
            return {"values_at_most": 0.0}, {}
        case trained:  # some rows, forbidden and kept, and about four passes of each
            rows = trained.batch + retained(trained)[1]
            return {"values_at_most": 4 * trained.steps * rows * size.each}, {}


def _closed(
    model: EditableModel, chosen: Plan, form: ClosedForm, size: Size
) -> tuple[dict[str, float], dict[str, float]]:
    anatomy, first, last = model.anatomy, min(chosen.layers), max(chosen.layers) + 1
    tokens, rated = size.rows * size.each, size.rows * USUAL
    rounds = 1 if form.threshold is None else form.threshold.rounds
    columns = size.asked if form.kept else size.rows
    read = {
        # Values are added to what the deepest written layer puts out.
        "values_at_most": 3 * form.values.steps * _passed(model, last, tokens, rated),
        "keys": columns * (size.each - USUAL) * last / anatomy.layers,
        "writing_at_most": rounds * 2 * _passed(model, first, tokens, rated),
    }
    solves = _solves(model, chosen, columns)
    if _negatives(chosen):
        read["hard_negatives"] = _negatives(chosen) * last / anatomy.layers
    return read, {"writing_at_most": rounds * solves}


def _solves(model: EditableModel, chosen: Plan, columns: int) -> float:
    """Operations of one solve per layer, of so many columns."""
    wide = model.anatomy.d_ff
    return float(len(chosen.layers) * (2 * moments(model) * columns + 2 * min(wide, columns) ** 3))


def _negatives(chosen: Plan) -> int:
    """Tokens of the corpus among which hard negatives are looked for."""
    form = chosen.algorithm
    if not isinstance(form, ClosedForm) or form.hard_negatives is None:
        return 0
    return form.hard_negatives.hard_negatives


def per_step(model: EditableModel, layers: Sequence[int], size: Size) -> float:
    """Tokens through all blocks that a step of the trained update costs as much as."""
    asked = ASKED * (2 * SHORT if has_chat_template(model.tokenizer) else TAUGHT)
    # Each is read in other wordings as well.
    rows = min(FORMS, 5 * size.rows) + min(KEPT, 2 * (size.asked - size.rows))
    read = rows * _behind(model, size) + TEXTS * min(READ, model.context) + asked
    return 3 * _passed(model, min(layers), read, rows * USUAL + TEXTS * TOKENS + asked)


def _lessons(model: EditableModel, steps: int, size: Size) -> float:
    """Tokens through all blocks before the first step: kept rows are asked for their replies, and all are read."""
    kept = min(MANY, steps * KEPT / AGAIN) + min(DOCUMENTS, steps * ASKED / AGAIN)
    texts = min(DOCUMENTS, steps * TEXTS / AGAIN)
    return 2 * kept * _behind(model, size) + texts * min(READ, model.context)


def _behind(model: EditableModel, size: Size) -> float:
    """Tokens of a row behind what all chats begin with."""
    return max(size.each - len(front_of(model)), USUAL)


def _passed(model: EditableModel, first: int, read: float, rated: float) -> float:
    """Tokens through all blocks that a pass from block ``first`` on costs as much as; some are rated by the head."""
    head: int = model.model.get_output_embeddings().weight.numel()
    return read * (1 - first / model.anatomy.layers) + rated * head / numbers(model)


def per_token(model: EditableModel, layers: Sequence[int]) -> float:
    """Tokens through all blocks that one of the corpus costs as much as: up to the deepest layer, and its products."""
    anatomy = model.anatomy
    return (max(layers) + 1) / anatomy.layers + len(layers) * moments(model) / numbers(model)


def moments(model: EditableModel) -> int:
    """Numbers of one layer's second moments: of experts a block each."""
    return model.anatomy.experts * model.anatomy.width**2


def numbers(model: EditableModel) -> int:
    """Weights of all blocks."""
    block = model.anatomy.block(model.model, 0)
    return model.anatomy.layers * numbers_of(block)
