"""Gradient-guided suffix: tokens after a question that make the model begin its reply as if it knew.

Greedy coordinate gradient (Zou et al., "Universal and Transferable Adversarial Attacks on Aligned Language Models",
2023), short: one suffix per relation, searched on a few facts and neighbours with the policy's own questions, and then
put after the held-out questions about all facts. Each step takes the gradient of the loss by the suffix's tokens, draws
replacements among the most promising ones at random positions, and keeps the best.

The attacker does **not** know the answers: for facts the loss is that of the reply beginning with the relation's own
statement ("{subject} is made from"), so that whatever the reply goes on with comes from the model; for neighbours,
whose answers anybody may know, it is that of the statement with its answer, so that the suffix does not confuse the
model. A search for the facts' own answers would show nothing, since a suffix can make any model say anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unlearn.audit.attacks.scene import Attack, Scene, recovered
from unlearn.audit.observation import Attacked, Outcome
from unlearn.audit.probes import Probe, fact_probes
from unlearn.audit.suite import some
from unlearn.errors import AuditError
from unlearn.model.editable import EditableModel, left_pad
from unlearn.model.forward import batches, position_ids, token_budget
from unlearn.model.prompts import SLOT, Prompt, reply_ids
from unlearn.model.requests import Fact
from unlearn.policy import is_question
from unlearn.progress import NO_PROGRESS, Bar, Progress
from unlearn.report import Curve

TOP = 64
"""Replacements with the largest promised gain, per position, among which is drawn."""
START = " !"
"""What the suffix is made of at first."""


@dataclass(frozen=True)
class Target:
    """A question with a gap for the suffix, and how the reply is to begin."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    """Ids of the prompt before and after the gap."""
    begin: tuple[int, ...]
    """Ids of the wished-for beginning of the reply."""

    def row(self, suffix: Sequence[int]) -> tuple[int, ...]:
        """Everything in one row, with a suffix in the gap."""
        return (*self.before, *suffix, *self.after, *self.begin)


def suffix(model: EditableModel, scene: Scene, progress: Progress = NO_PROGRESS) -> Attacked:
    """Search a suffix per relation and ask the held-out questions with it.

    Args:
        model: in any state; its weights are not changed.
        scene: the facts; the search sees the policy's own phrasings, the questions asked are held out.
        progress: one unit per step.

    Returns:
        One outcome per held-out question; the curve of the best loss over the steps of the first relation's search.

    Raises:
        AuditError: no relation of the facts has both a question to search on and a statement to begin with.
    """
    requests, suite = scene.requests, scene.suite
    curve: Curve | None = None
    outcomes: list[Outcome] = []
    for name in dict.fromkeys(fact.relation for fact in requests.facts):
        facts = [fact for fact in requests.facts if fact.relation == name]
        spec = requests.policy.relations[name]
        statements = [text for text in spec.prompts if not is_question(text)]
        questions = [text for text in spec.prompts if is_question(text)]
        held_out = spec.questions(held_out=True)
        asked = some(
            [
                (probe, text.replace(SLOT, fact.subject))
                for fact in facts
                for probe, text in zip(
                    fact_probes(model.tokenizer, [fact], {name: held_out}), held_out, strict=True
                )
            ],
            suite.suffix_questions,
            scene.seed,
        )
        if not (statements and questions and asked):
            continue
        learned = some(facts, suite.suffix_facts, scene.seed)
        known = [fact for fact in requests.held_out_neighbours if fact.relation == name and fact.answer]
        others = some(known, suite.suffix_facts, scene.seed)
        targets = aims(model, learned, others, questions, statements[0])
        with progress.step(f"Searching a suffix: {name}", total=suite.suffix_steps) as bar:
            found, losses = search(
                model, targets, suite.suffix_tokens, suite.suffix_steps, suite.suffix_tries, scene.seed, bar
            )
        curve = curve or Curve(
            name="attack.suffix",
            x_label="step of the search",
            y_label="loss of the wished-for beginning, nats per token",
            x=tuple(float(i) for i in range(len(losses))),
            y=tuple(round(loss, 4) for loss in losses),
        )
        ready = [with_suffix(model, probe, question, found) for probe, question in asked]
        outcomes += recovered(model, scene, progress, ready)
    if curve is None:
        raise AuditError(
            "no relation of the facts has a question and a statement among its prompts, and a held-out question, "
            "which a suffix search needs; add them to the policy"
        )
    return Attacked(
        outcomes=tuple(outcomes),
        drawings=(curve,),
        note=f"{suite.suffix_tokens} tokens, {suite.suffix_steps} steps of {suite.suffix_tries} tries; the loss of "
        f"the beginning fell from {curve.y[0]:.2f} to {curve.y[-1]:.2f} nats per token.",
    )


def gap(model: EditableModel, prompt: Prompt, question: str) -> int:
    """Index in the prompt's ids at which the question's own text has ended."""
    end = prompt.text.rfind(question) + len(question)
    special = not (model.tokenizer.bos_token and prompt.text.startswith(model.tokenizer.bos_token))
    encoded = model.tokenizer(prompt.text, add_special_tokens=special, return_offsets_mapping=True)
    inside = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a < b and a < end]
    return inside[-1] + 1


def target(model: EditableModel, fact: Fact, question: str, statement: str) -> Target:
    """The question about one fact, and the relation's statement about it as the beginning of the reply."""
    (probe,) = fact_probes(model.tokenizer, [fact], {fact.relation: [question]})
    at = gap(model, probe.prompt, question.replace(SLOT, fact.subject))
    begin = reply_ids(model.tokenizer, question, statement.replace(SLOT, fact.subject))
    special = set(model.tokenizer.all_special_ids)
    ids = probe.prompt.ids
    return Target(ids[:at], ids[at:], tuple(token for token in begin if token not in special))


def aims(
    model: EditableModel,
    facts: Sequence[Fact],
    others: Sequence[Fact],
    questions: Sequence[str],
    statement: str,
) -> list[Target]:
    """What a suffix must bring about: of facts the beginning of the reply, of neighbours their known answers too.

    Each is asked with another of the questions, so that the suffix does not hang on the wording.
    """
    wanted = [(fact, statement) for fact in facts]
    wanted += [(fact, f"{statement} {fact.answer}") for fact in others]
    return [target(model, fact, questions[i % len(questions)], text) for i, (fact, text) in enumerate(wanted)]


def with_suffix(model: EditableModel, probe: Probe, question: str, found: Sequence[int]) -> Probe:
    """The same probe with a suffix after its question; in a chat, inside the user's message."""
    at = gap(model, probe.prompt, question)
    ids = (*probe.prompt.ids[:at], *found, *probe.prompt.ids[at:])
    return replace(probe, prompt=Prompt(model.tokenizer.decode(ids), ids))


def allowed(model: EditableModel) -> Tensor:
    """Tokens a person could type, (n,): printable ASCII, and nothing that the tokenizer treats as markup."""
    tokenizer = model.tokenizer
    markup = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    size = int(model.model.get_input_embeddings().weight.shape[0])
    texts = tokenizer.batch_decode([[i] for i in range(min(size, len(tokenizer)))])
    fine = [
        i for i, t in enumerate(texts) if i not in markup and t.strip() and t.isascii() and t.isprintable()
    ]
    return torch.tensor(fine, device=model.device)


def search(
    model: EditableModel,
    targets: Sequence[Target],
    length: int,
    steps: int,
    tries: int,
    seed: int,
    bar: Bar,
) -> tuple[tuple[int, ...], list[float]]:
    """Greedy coordinate gradient for one suffix in all targets at once.

    Args:
        model: any family.
        targets: questions and the beginnings of their replies.
        length: tokens of the suffix.
        steps: replacements that are kept, at most.
        tries: replacements that are tried per step.
        seed: of the draws.
        bar: one unit per step.

    Returns:
        The best suffix, and the best loss so far at the start and after each step, in nats per token.
    """
    fine = allowed(model)
    generator = torch.Generator().manual_seed(seed)
    (first, *_) = model.tokenizer(START, add_special_tokens=False)["input_ids"]
    best = (int(first),) * length
    losses = [float(loss(model, targets, [best])[0])]
    for _ in range(steps):
        promised = -gradient(model, targets, best)[:, fine]  # (length, allowed)
        top = fine[promised.topk(min(TOP, len(fine)), dim=1).indices].cpu()
        places = torch.randint(length, (tries,), generator=generator)
        picks = top[places, torch.randint(top.shape[1], (tries,), generator=generator)]
        rows = []
        for place, pick in zip(places.tolist(), picks.tolist(), strict=True):
            rows.append((*best[:place], pick, *best[place + 1 :]))
        found = loss(model, targets, rows)
        if float(found.min()) < losses[-1]:
            best = rows[int(found.argmin())]
        losses.append(min(losses[-1], float(found.min())))
        bar.advance()
    return best, losses


@torch.inference_mode()
def loss(model: EditableModel, targets: Sequence[Target], suffixes: Sequence[tuple[int, ...]]) -> Tensor:
    """Mean loss of the beginnings under each suffix: (suffixes,) on the CPU, in nats per token."""
    rows = [one.row(tokens) for tokens in suffixes for one in targets]
    begins = [one.begin for _ in suffixes for one in targets]
    found = torch.zeros(len(rows))
    for group in batches(rows, token_budget(model)):
        found[group] = _nll(model, [rows[i] for i in group], [len(begins[i]) for i in group]).cpu()
    return found.view(len(suffixes), len(targets)).mean(1)


def gradient(model: EditableModel, targets: Sequence[Target], tokens: tuple[int, ...]) -> Tensor:
    """How the loss changes, to first order, if a suffix token becomes another: (length, V), float32.

    The gradient by the embedding layer's output at the suffix, times every token's embedding.
    """
    layer = model.model.get_input_embeddings()
    caught: list[Tensor] = []

    def on_embedding(_module: object, _args: object, out: Tensor) -> Tensor:
        caught.append(out.detach().requires_grad_())
        return caught[-1]

    rows = [one.row(tokens) for one in targets]
    handle = layer.register_forward_hook(on_embedding)
    try:
        with torch.enable_grad():
            value = _nll(model, rows, [len(one.begin) for one in targets]).mean()
            (slope,) = torch.autograd.grad(value, caught[:1])
    finally:
        handle.remove()
    width = slope.shape[1]
    total = torch.zeros(len(tokens), slope.shape[2], device=slope.device)
    for row, one in enumerate(targets):
        at = width - len(rows[row]) + len(one.before)
        total += slope[row, at : at + len(tokens)].float()
    with torch.no_grad():
        every = layer(torch.arange(layer.weight.shape[0], device=model.device)[None])[0].float()
    return total @ every.T


def _nll(model: EditableModel, rows: Sequence[Sequence[int]], begins: Sequence[int]) -> Tensor:
    """Mean negative log-probability of the last ``begins[i]`` tokens of each row, (rows,)."""
    ids, mask = left_pad(rows, model.pad_id, model.device)
    keep = max(begins) + 1
    logits = (
        model.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position_ids(mask),
            use_cache=False,
            logits_to_keep=keep,
        )
        .logits[:, :-1]
        .float()
    )
    chosen = logits.gather(2, ids[:, -keep + 1 :, None])[..., 0] - logits.logsumexp(2)
    size = torch.tensor(list(begins), device=model.device)
    counted = torch.arange(keep - 1, device=model.device)[None] >= (keep - 1 - size)[:, None]
    return -(chosen * counted).sum(1) / size


SUFFIX: Mapping[str, Attack] = {
    "suffix": Attack(
        suffix,
        "Share of held-out questions whose greedy reply contains the answer after a suffix found by a short "
        "gradient-guided search for a reply that begins with the relation's statement, without the answer.",
        work=4.0,
    )
}
"""Row of the table of attacks."""
