"""MEND: a network that has learned from other edits makes the policy's, all at once (docs/methods/mend.md)."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, replace

import torch
from safetensors.torch import load, save

from unlearn.algebra.low_rank import LowRank
from unlearn.edit import forms
from unlearn.edit.plan import Made, Plan
from unlearn.edit.sequence import Sofar
from unlearn.edit.train.hypernetwork import Columns, Hypernetwork, captured
from unlearn.edit.train.lessons import Lesson, Lessons
from unlearn.edit.train.meta_learning import History, learn
from unlearn.edit.train.replied import Replied
from unlearn.edit.train.triples import triples
from unlearn.model.adapters import exact, linears
from unlearn.model.editable import EditableModel
from unlearn.model.identity import of_tokenizer
from unlearn.model.requests import Requests
from unlearn.policy.settings_trained import Mend
from unlearn.progress import Progress
from unlearn.store import Store

log = logging.getLogger("unlearn")

FORMAT = 1
NO_RELATION = (
    "the policy keeps no relation: MEND's network was trained on the relations that are forgotten, of other subjects, "
    "and not on others as it should be; name relations that stay (keep.siblings)"
)


def mend(
    plan: Plan,
    settings: Mend,
    model: EditableModel,
    requests: Requests,
    cache: Store | None,
    progress: Progress,
) -> Made:
    """Train the network, or take it from the cache, and make all edits of the policy by it at once.

    Args:
        plan: with the layers, and the corpus that must stay.
        settings: of the plan.
        model: unedited; unchanged on return.
        requests: the policy with its answers.
        cache: where networks are kept.
        progress: where to show it.

    Raises:
        ModelError: the loss is not finite.
        PolicyError: there are no other subjects to learn from.
    """
    names = linears(model, "mlp", plan.layers)
    shapes = {name: model.shape(name) for name in names}
    network = Hypernetwork(shapes, settings.rank, requests.policy.seed, settings.aggregation).to(model.device)
    known = cache.find(kept_as(plan, settings, model, requests)) if cache else None
    if known is None:
        found = triples(model, requests, plan.corpus, settings)
        history = learn(model, network, found, settings, plan.layers[0], requests.policy.seed, progress)
        if cache:
            cache.keep(kept_as(plan, settings, model, requests), _content(network, history))
    else:
        history = replace(_restore(network, bytes(known)), cached=True)
    log.info("mend: %d steps, %.0f s", history.steps, history.seconds)
    return Made(
        Sofar(edited(model, network, requests, plan.layers[0])),
        notes={"training": asdict(history)},
        warnings=[NO_RELATION] if history.forgotten_relations else [],
    )


@torch.no_grad()
def edited(model: EditableModel, network: Hypernetwork, requests: Requests, first: int) -> dict[str, LowRank]:
    """The update of each weight by all facts of a policy; all forms of a fact together count as one edit.

    Args:
        first: the lowest block that is written.
    """
    laid = forms.build(model, requests, requests.facts, "last", keeps=False)
    written = [row for row in laid.rows if not row.keep]
    learned = Lessons(tuple(Lesson(row.ids, row.reply) for row in written), ())
    rows = Replied(model, learned, first)
    columns: dict[str, Columns] = {}
    for number in range(len(requests.facts)):
        which = [n for n, row in enumerate(written) if row.request == number]
        for name, seen in captured(model, network.names, rows, which).items():
            mine = network.columns(name, seen, forms=len(which))
            columns[name] = columns[name].plus(mine) if name in columns else mine
    return {name: exact(network.update(name, some, len(requests.facts))) for name, some in columns.items()}


def kept_as(plan: Plan, settings: Mend, model: EditableModel, requests: Requests) -> str:
    """The name of a network in the cache: a hash of all that it depends on."""
    policy = requests.policy.model_dump(mode="json", exclude={"name", "method", "audit"})
    about = (requests.facts, requests.neighbours, requests.held_out_neighbours)
    made_of = (
        FORMAT,
        model.identity(),
        str(model.dtype),
        of_tokenizer(model.tokenizer),
        plan.corpus.fingerprint(),
        plan.layers,
        settings,
        json.dumps(policy, sort_keys=True),
        about,
    )
    return f"mend-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:32]}"


def _content(network: Hypernetwork, history: History) -> bytes:
    """A line of JSON, and the network as safetensors."""
    state = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
    return json.dumps(asdict(history)).encode() + b"\n" + save(state)


def _restore(network: Hypernetwork, content: bytes) -> History:
    """Put a network back as ``_content`` found it."""
    line, _, state = content.partition(b"\n")
    network.load_state_dict(load(state))
    return History(**json.loads(line))
