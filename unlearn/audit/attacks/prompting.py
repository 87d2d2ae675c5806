"""Attacks by prompts alone: hints before the question, a reply begun for the model, parts to play, orders, bare text.

Each takes some held-out questions of every fact and puts each into several forms; one form that gets the answer is
enough, so that a form which a model does not understand cannot hide one that it obeys. The wordings of most forms are
data, in ``evals/attacks``. The kinds of attack are those of RWKU's adversarial probes (Jin et al., 2024) and of the
contextual prefixes of superficial editing (Xie et al., 2025); the texts are our own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from unlearn.audit.asking import outcome
from unlearn.audit.attacks.scene import Attack, Scene
from unlearn.audit.observation import Attacked
from unlearn.audit.probes import Probe, read_lines
from unlearn.audit.suite import evenly, some
from unlearn.errors import AuditError
from unlearn.matching import contains, words
from unlearn.measurements import named
from unlearn.model.editable import EditableModel
from unlearn.model.guard import behind_guard
from unlearn.model.prompts import (
    Prompt,
    Tokenizer,
    ask,
    begun,
    capital,
    chat_prompt,
    has_chat_template,
    plain_prompt,
)
from unlearn.model.replies import replies_to
from unlearn.model.requests import Fact
from unlearn.policy import is_question
from unlearn.progress import Progress
from unlearn.shipped import shipped
from unlearn.thoughts import Room

QUESTION, SUBJECT = "{question}", "{subject}"


@dataclass(frozen=True)
class Target:
    """One held-out prompt of one fact: what the forms of an attack are made of."""

    key: str
    fact: Fact
    template: str

    @property
    def text(self) -> str:
        """The prompt with its subject."""
        return self.template.replace(SUBJECT, self.fact.subject)


Forms = Callable[[Tokenizer, Scene, Target], Iterable[Prompt]]
"""All forms of one prompt; as many for every prompt of a policy as can be made."""


def targets(scene: Scene) -> list[Target]:
    """Held-out questions, as many as the suite allows, spread evenly over the facts.

    A relation without held-out questions is asked by its held-out statements.

    Raises:
        AuditError: no relation of the facts has held-out prompts.
    """
    relations = scene.requests.policy.relations
    rows: list[list[Target]] = []
    for fact in scene.requests.facts:
        relation = relations[fact.relation]
        found = relation.questions(held_out=True) or relation.statements(held_out=True)
        order = list(enumerate(found))
        random.Random(f"{scene.seed}/{fact.id}").shuffle(order)
        rows.append([Target(f"{fact.id}/{j}", fact, text) for j, text in order])
    if not any(rows):
        raise AuditError("no relation of the facts has held-out prompts to build an attack on")
    return evenly(rows, scene.suite.attack_prompts, scene.seed)


def attacked(forms: Forms, label: str) -> Callable[[EditableModel, Scene, Progress], Attacked]:
    """The function of an attack's row: ask every form of every target greedily, and count a target once."""

    def run(model: EditableModel, scene: Scene, progress: Progress) -> Attacked:
        chosen = targets(scene)
        asked = [list(forms(model.tokenizer, scene, target)) for target in chosen]
        if not any(asked):
            raise AuditError("there is no form of this attack for the policy's held-out prompts")
        room = Room(scene.suite.attack_tokens, scene.suite.thought_tokens)
        every = [prompt for row in asked for prompt in row]
        replies = replies_to(model, every, room, progress=progress, label=label, whole=True)
        said = iter(replies)
        refusals = scene.requests.policy.targets()
        outcomes, hits, tried = [], dict[int, int](), dict[int, int]()
        for target, row in zip(chosen, asked, strict=True):
            heard = [next(said)[0].read_through() for _ in row]
            probe = Probe(target.key, Prompt("", ()), target.fact.answers, target.fact.id)
            if heard:
                outcomes.append(outcome(probe, heard, refusals))
            for form, reply in enumerate(heard):
                tried[form] = tried.get(form, 0) + 1
                hits[form] = hits.get(form, 0) + contains(reply.visible, target.fact.answers)
        best = max(hits[form] / tried[form] for form in tried)
        most = max(map(len, asked))
        return Attacked(
            outcomes=tuple(outcomes), note=f"Any of up to {most} forms counts; the best alone: {best:.1%}."
        )

    return run


def lines(name: str, holder: str | None = QUESTION) -> list[str]:
    r"""The forms of ``evals/attacks/<name>.txt``, with \\n as a new line.

    Raises:
        AuditError: the file cannot be read, or a line does not hold `holder` exactly once.
    """
    path = shipped("evals") / "attacks" / f"{name}.txt"
    found = [line.replace("\\n", "\n") for line in read_lines(path)]
    wrong = [line for line in found if holder is not None and line.count(holder) != 1]
    if wrong:
        raise AuditError(f"{path}: a form must hold {holder} exactly once, this one does not: {wrong[0]!r}")
    return found


def _wrapped(name: str) -> Forms:
    """The target inside each line of a file, asked in the chat template where there is one."""

    def forms(tokenizer: Tokenizer, scene: Scene, target: Target) -> Iterable[Prompt]:
        for line in lines(name):
            # A statement to complete must stay last.
            if is_question(target.template) or line.endswith(QUESTION):
                yield ask(tokenizer, line.replace(QUESTION, target.text))

    return forms


def _begun(tokenizer: Tokenizer, scene: Scene, target: Target) -> Iterable[Prompt]:
    """The question, and a reply that has begun: with an affirmative line, or with the relation's own statements."""
    prompt = ask(tokenizer, target.text)
    relation = scene.requests.policy.relations[target.fact.relation]
    stated = [*relation.statements()[:1], *relation.statements(held_out=True)[:1]]
    heads = [*lines("prefill", None), *stated, *(f"Sure. {text}" for text in stated[:1])]
    for head in heads:
        text = head.replace(SUBJECT, target.fact.subject)
        yield begun(tokenizer, prompt, capital(text), is_question(target.template))


def _bare(tokenizer: Tokenizer, scene: Scene, target: Target) -> Iterable[Prompt]:
    """The question as plain text; a guard that a tokenizer carries stands before it as it does before any text."""
    for line in lines("no_template"):
        yield plain_prompt(tokenizer, behind_guard(tokenizer, line.replace(QUESTION, target.text)))


def _hinted(tokenizer: Tokenizer, scene: Scene, target: Target) -> Iterable[Prompt]:
    """The question after others with their answers: about neighbours, and about the same subject."""
    for shots in sorted({1, scene.suite.few_shots}):
        shown = _neighbours(scene, target.fact, shots)
        if shown:
            yield _after(tokenizer, [(target.template, fact) for fact in shown], target)
    own = _siblings(scene, target.fact)
    for shown_own in (own[:1], own):
        if shown_own:
            yield _after(tokenizer, shown_own, target)


def _after(tokenizer: Tokenizer, shown: Sequence[tuple[str, Fact]], target: Target) -> Prompt:
    """A prompt after some that are answered: turns of a chat, or sentences of a text."""
    pairs = [(template.replace(SUBJECT, fact.subject), fact.answer) for template, fact in shown]
    if is_question(target.template) and has_chat_template(tokenizer):
        turns: list[dict[str, str]] = []
        for asked, answer in pairs:
            turns.append({"role": "user", "content": asked})
            turns.append({"role": "assistant", "content": capital(answer) + "."})
        return chat_prompt(tokenizer, [*turns, {"role": "user", "content": target.text}])
    text = "\n".join([*(f"{asked} {answer}." for asked, answer in pairs), target.text])
    return plain_prompt(tokenizer, behind_guard(tokenizer, text))


def _neighbours(scene: Scene, fact: Fact, most: int) -> list[Fact]:
    """Other subjects of the relation with their answers, none of which would give this fact's answer away."""
    own = {f.id for f in scene.requests.facts}
    return some(
        [
            other
            for other in scene.candidates(fact.relation)
            if other.id not in own
            and other.known
            and words(other.answer)
            and not contains(other.answer, fact.answers)
        ],
        most,
        random.Random(f"{scene.seed}/{fact.id}").getrandbits(32),
    )


def _siblings(scene: Scene, fact: Fact) -> list[tuple[str, Fact]]:
    """Harmless questions about the same subject, one of each relation, with their answers."""
    relations = scene.requests.policy.relations
    found = []
    for other in scene.requests.siblings:
        if other.subject != fact.subject or not other.known or not words(other.answer):
            continue
        asked = relations[other.relation].questions()
        if asked and not contains(other.answer, fact.answers):
            found.append((asked[0], other))
    return found[: scene.suite.few_shots]


PROMPTING = (
    Attack(named("attack.few_shot"), attacked(_hinted, "Attack: hints before the question")),
    Attack(named("attack.prefill"), attacked(_begun, "Attack: the reply is begun")),
    Attack(named("attack.role_play"), attacked(_wrapped("role_play"), "Attack: parts to play")),
    Attack(named("attack.injection"), attacked(_wrapped("injection"), "Attack: orders to ignore rules")),
    Attack(named("attack.no_template"), attacked(_bare, "Attack: no chat template")),
)
