"""About how long an edit and its audit will take, and how much memory: counted passes times this machine's speed.

Passes are counted in tokens through all blocks, solves in operations. What ends early where it converges is counted to
its end, and named so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from unlearn.audit.cache import Paces
from unlearn.audit.control import states_of
from unlearn.audit.estimate import estimate, speed_of
from unlearn.audit.suite import load_suite
from unlearn.edit.plan import Plan
from unlearn.edit.settings import ClosedForm, Tuning, retained
from unlearn.edit.statistics import DECOMPOSING, tokens_of
from unlearn.edit.train.seen import front_of
from unlearn.edit.train.taught import ASKED, FORMS, KEPT, READ, SAID, SHORT, TEXTS, TOKENS
from unlearn.model.editable import EditableModel
from unlearn.model.forward import token_budget
from unlearn.model.machine import matrix_rate
from unlearn.model.memory import taken
from unlearn.model.prompts import has_chat_template
from unlearn.model.requests import Requests
from unlearn.policy import Policy
from unlearn.policy.settings import UltraEdit
from unlearn.policy.settings_trained import Guard, Nothing, RepSelect
from unlearn.store import Store, cache_folder

REPLY = 24
"""Most tokens of a reply; the usual reply has half of them."""
USUAL = 12
"""Tokens of a reply that is written, trained or kept."""
EIGEN = 25
"""Operations of an eigen-decomposition per cubed width, at the rate of a product."""


class Size(NamedTuple):
    """What an edit reads, in rows and tokens."""

    rows: int
    """Prompts to be forgotten."""
    each: float
    """Their tokens, with a reply, on average."""
    asked: int
    """All prompts that are asked for their answers: those to be forgotten, and kept ones."""


def seconds(
    policy: Policy, model: EditableModel, chosen: Plan, requests: Requests, lengths: Sequence[int], asked: int
) -> dict[str, float]:
    """Seconds of every step.

    Args:
        policy: what is done.
        model: whose speed is measured in two short runs.
        chosen: the plan.
        requests: for the audit.
        lengths: tokens of the prompts to be forgotten.
        asked: prompts that are asked for their answers before the edit.
    """
    size = Size(len(lengths), sum(lengths) / max(len(lengths), 1) + USUAL, asked)
    speed = speed_of(model, requests)
    paces = Paces(Store.existing(cache_folder()), policy.model, model.device.type)
    audit = estimate(requests, load_suite(policy.audit.suite), states_of(policy), paces, speed)
    read, solved = _edit(model, chosen, size)
    keys = 0 if chosen.conflicts is None else tokens_of(policy, model)
    read["statistics"] = keys * per_token(model, chosen.layers) if keys else 0.0
    solved["statistics"] = EIGEN * len(chosen.layers) * model.anatomy.d_ff**3 if read["statistics"] else 0.0
    rate = matrix_rate(torch.float64, model.device)
    steps = {name: read.get(name, 0.0) * speed.read + solved.get(name, 0.0) / rate for name in read | solved}
    if chosen.corpus.own is not None:
        steps["statistics"] += keys * speed.said
    return {
        "statistics": round(steps.pop("statistics"), 1),
        "answers": round(asked * REPLY / 2 * speed.said, 1),
        **{name: round(took, 1) for name, took in steps.items()},
        "audit": round(audit.total or 0.0, 1),
    }


def memory(chosen: Plan, model: EditableModel, lengths: Sequence[int], asked: int) -> dict[str, int]:
    """Bytes at the edit's peak: on the model's device, and of statistics on the host.

    Args:
        chosen: the plan.
        model: as it is loaded, which is part of it; on a CPU the program itself is, too.
        lengths: tokens of the prompts to be forgotten.
        asked: prompts that are asked for their answers, one key each.
    """
    anatomy, layers = model.anatomy, len(chosen.layers)
    # float64 on the host: the sum, its average, and the eigenvectors with their work space.
    statistics = 0 if chosen.conflicts is None else DECOMPOSING * 8 * anatomy.d_ff**2
    statistics += 0 if chosen.conflicts is None else 2 * 8 * anatomy.d_ff**2 * layers
    # What a backward pass through the blocks keeps: roughly sixteen vectors of the stream's width per token.
    above = anatomy.layers - (min(chosen.layers) if chosen.layers else 0)
    tokens = min(sum(lengths) + USUAL * len(lengths), token_budget(model, gradients=True))
    activations = 16 * 4 * anatomy.d_model * above * tokens
    logits = (
        4 * 4 * model.model.get_output_embeddings().weight.shape[0] * USUAL * min(len(lengths), FORMS + KEPT)
    )
    # Those of one layer are solved for, those of hard negatives wait at all of them.
    keys = 3 * 8 * anatomy.d_ff * asked * min(layers, 1) + 8 * anatomy.d_ff * layers * _negatives(chosen)
    copies = 2 * 4 * anatomy.d_ff * anatomy.d_model * layers
    return {
        "device": taken(model.device) + activations + logits + keys + copies,
        "host_statistics": statistics,
    }


def _edit(model: EditableModel, chosen: Plan, size: Size) -> tuple[dict[str, float], dict[str, float]]:
    """By step of the edit, tokens through all blocks, and operations of float64 products."""
    match chosen.algorithm:
        case Tuning() as tuning:
            return {"training": tuning.steps * per_step(model, chosen.layers, size)}, {}
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
    return float(len(chosen.layers) * (2 * wide**2 * columns + 2 * min(wide, columns) ** 3))


def _negatives(chosen: Plan) -> int:
    """Tokens of the corpus among which hard negatives are looked for."""
    form = chosen.algorithm
    if not isinstance(form, ClosedForm) or form.hard_negatives is None:
        return 0
    return form.hard_negatives.hard_negatives


def per_step(model: EditableModel, layers: Sequence[int], size: Size) -> float:
    """Tokens through all blocks that a step of the trained update costs as much as."""
    asked = ASKED * (2 * SHORT if has_chat_template(model.tokenizer) else SAID)
    # Each is read in other wordings as well.
    rows = min(FORMS, 5 * size.rows) + min(KEPT, 2 * (size.asked - size.rows))
    read = rows * max(size.each - len(front_of(model)), USUAL) + TEXTS * min(READ, model.context) + asked
    return 3 * _passed(model, min(layers), read, rows * USUAL + TEXTS * TOKENS + asked)


def _passed(model: EditableModel, first: int, read: float, rated: float) -> float:
    """Tokens through all blocks that a pass from block ``first`` on costs as much as; some are rated by the head."""
    head: int = model.model.get_output_embeddings().weight.numel()
    return read * (1 - first / model.anatomy.layers) + rated * head / numbers(model)


def per_token(model: EditableModel, layers: Sequence[int]) -> float:
    """Tokens through all blocks that one of the corpus costs as much as: up to the deepest layer, and its products."""
    anatomy = model.anatomy
    return (max(layers) + 1) / anatomy.layers + len(layers) * anatomy.d_ff**2 / numbers(model)


def numbers(model: EditableModel) -> int:
    """Weights of all blocks."""
    block = model.anatomy.block(model.model, 0)
    return model.anatomy.layers * sum(p.numel() for p in block.parameters())
