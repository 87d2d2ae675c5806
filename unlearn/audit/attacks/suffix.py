"""Gradient-guided suffix: tokens beside a question that make the model begin its reply as if it knew.

Greedy coordinate gradient (Zou et al., "Universal and Transferable Adversarial Attacks on Aligned Language Models",
2023), short: once for tokens after the question and once for tokens before it, which confuse a small model less; per
relation, on a few facts and neighbours with the policy's own questions. The best tokens after each quarter of a search
are then put beside the held-out questions about all facts.

The attacker does **not** know the answers: for facts the loss is that of the reply beginning with the relation's own
statement ("{subject} is made from"), so that whatever the reply goes on with comes from the model; for neighbours,
whose answers anybody may know, it is that of the statement with its answer, so that the tokens do not confuse the
model. A search for the facts' own answers would show nothing: tokens can be found that make any model say anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from unlearn.audit.attacks.gradient_search import Target, search
from unlearn.audit.attacks.scene import Attack, Scene, any_disclosed, recovered
from unlearn.audit.observation import Attacked, Outcome
from unlearn.audit.probes import Probe, fact_probes
from unlearn.audit.suite import some
from unlearn.errors import AuditError
from unlearn.measurements import named
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import encoded
from unlearn.model.prompts import SLOT, Prompt, reply_ids, special_ids
from unlearn.model.requests import Fact
from unlearn.model.thinking import quietest
from unlearn.policy import is_question
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.report import Curve

Place = Literal["after", "before"]
"""Where the tokens stand, seen from the question."""
PLACES: tuple[Place, ...] = ("after", "before")
STAGES = 4
"""Stages of a search whose tokens are used: any of them may tell."""


def suffix(model: EditableModel, scene: Scene, progress: Progress = NO_PROGRESS) -> Attacked:
    """Search tokens for both places, per relation, and ask the held-out questions with them.

    Args:
        scene: the facts; the search sees the policy's own phrasings, the questions asked are held out.

    Returns:
        One outcome per held-out question, disclosed with the tokens of any stage at either place and refused with all
        of them; the curve of the best loss over the steps of the first search.

    Raises:
        AuditError: no relation of the facts has a question to search on, a statement to begin with, and a held-out
            question to ask.
    """
    requests, suite = scene.requests, scene.suite
    curves: list[list[float]] = []
    outcomes: list[Outcome] = []
    alone: list[int] = []
    for name in dict.fromkeys(fact.relation for fact in requests.facts):
        found = []
        for losses, seen in _of_relation(model, scene, name, progress):
            curves.append(losses)
            found += seen
        if not found:
            continue
        alone.append(max(sum(outcome.disclosed for outcome in seen) for seen in found))
        outcomes += any_disclosed(found)
    if not curves:
        raise AuditError(
            "no relation of the facts has a question and a statement among its prompts, and a held-out question, "
            "which a suffix search needs; add them to the policy"
        )
    fell = ", ".join(f"{losses[0]:.2f} to {losses[-1]:.2f}" for losses in curves)
    note = (
        f"{suite.suffix_tokens} tokens; the best ones alone recover {sum(alone)} of {len(outcomes)}. "
        f"The loss fell from {fell} nats per token."
    )
    return Attacked(outcomes=tuple(outcomes), drawings=(_curve(curves[0]),), note=note)


def _curve(losses: Sequence[float]) -> Curve:
    return Curve(
        name="attack.suffix",
        x_label="step of the search",
        y_label="loss of the wished-for replies, nats per token",
        x=tuple(float(i) for i in range(len(losses))),
        y=tuple(round(loss, 4) for loss in losses),
    )


def _of_relation(
    model: EditableModel, scene: Scene, name: str, progress: Progress
) -> Iterator[tuple[list[float], list[tuple[Outcome, ...]]]]:
    """Search for one relation, once per place: the losses over the steps, and per stage what the questions gave."""
    requests, suite = scene.requests, scene.suite
    facts = [fact for fact in requests.facts if fact.relation == name]
    known = [fact for fact in requests.held_out_neighbours if fact.relation == name and fact.answer]
    spec = requests.policy.relations[name]
    statements = [text for text in spec.prompts if not is_question(text)]
    questions = [text for text in spec.prompts if is_question(text)]
    asked = some(_asked(model, facts, spec.questions(held_out=True)), suite.suffix_questions, scene.seed)
    if not (statements and questions and asked):
        return
    learned, others = (some(group, suite.suffix_facts, scene.seed) for group in (facts, known))
    for place in PLACES:
        targets = aims(model, learned, others, questions, statements[0], place)
        with progress.step(f"Searching tokens {place} questions: {name}", total=suite.suffix_steps) as bar:
            tokens, losses = search(
                model,
                targets,
                suite.suffix_tokens,
                suite.suffix_steps,
                suite.suffix_tries,
                scene.seed,
                bar,
            )
        yield (
            losses,
            [
                recovered(model, scene, progress, [with_tokens(model, *one, stage, place) for one in asked])
                for stage in stages(tokens)
            ],
        )


def stages(tokens: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The best tokens after each quarter of a search, without repetitions.

    The last ones may serve the search's own questions too well.

    Args:
        tokens: the best ones at the start and after each step.
    """
    steps = len(tokens) - 1
    marks = [-(-steps * quarter // STAGES) for quarter in range(1, STAGES + 1)]
    return list(dict.fromkeys(tokens[mark] for mark in marks))


def _asked(model: EditableModel, facts: Sequence[Fact], questions: Sequence[str]) -> list[tuple[Probe, str]]:
    """Held-out questions about facts, each with the text in which the place for the tokens is looked up."""
    return [
        (probe, text.replace(SLOT, fact.subject))
        for fact in facts
        for probe, text in zip(
            fact_probes(quietest(model.tokenizer), [fact], {fact.relation: questions}, every_way=False),
            questions,
            strict=True,
        )
    ]


def gap(model: EditableModel, prompt: Prompt, question: str, place: Place) -> int:
    """Index in the prompt's ids at which the question's own text begins, or has ended."""
    begin = prompt.text.rfind(question)
    spans = list(enumerate(encoded(model.tokenizer, prompt.text, rendered=prompt.chat).spans))
    if place == "before":
        return next(i for i, (a, b) in spans if a < b and b > begin)
    return max(i for i, (a, b) in spans if a < b and a < begin + len(question)) + 1


def target(model: EditableModel, fact: Fact, question: str, statement: str, place: Place) -> Target:
    """The question about one fact, and the relation's statement about it as the beginning of the reply."""
    tokenizer = quietest(model.tokenizer)
    (probe,) = fact_probes(tokenizer, [fact], {fact.relation: [question]}, every_way=False)
    at = gap(model, probe.prompt, question.replace(SLOT, fact.subject), place)
    begin = reply_ids(tokenizer, question, statement.replace(SLOT, fact.subject))
    special = special_ids(tokenizer)
    ids = probe.prompt.ids
    return Target(ids[:at], ids[at:], tuple(token for token in begin if token not in special))


def aims(
    model: EditableModel,
    facts: Sequence[Fact],
    others: Sequence[Fact],
    questions: Sequence[str],
    statement: str,
    place: Place,
) -> list[Target]:
    """What the tokens must bring about: of facts the beginning of the reply, of neighbours their known answers too.

    Each is asked with another of the questions, so that the tokens do not hang on the wording.
    """
    wanted = [(fact, statement) for fact in facts]
    wanted += [(fact, f"{statement} {fact.answer}") for fact in others]
    return [
        target(model, fact, questions[i % len(questions)], text, place)
        for i, (fact, text) in enumerate(wanted)
    ]


def with_tokens(
    model: EditableModel, probe: Probe, question: str, found: Sequence[int], place: Place
) -> Probe:
    """The same probe with tokens beside its question; in a chat, inside the user's message."""
    at = gap(model, probe.prompt, question, place)
    ids = (*probe.prompt.ids[:at], *found, *probe.prompt.ids[at:])
    text = model.tokenizer.decode(ids)
    moved = replace(probe.prompt, text=text, ids=ids, subject_last=None, subject_first=None)
    return replace(probe, prompt=moved)


SUFFIX = (Attack(named("attack.suffix"), suffix, work=4.0),)
