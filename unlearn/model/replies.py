"""What a model says, in its parts: with room for thoughts where its chat template lets it think."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unlearn.model.editable import EditableModel
from unlearn.model.prompts import Prompt
from unlearn.model.thinking import marks_of
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.thoughts import Marks, Room, Said, left_open, parted


@dataclass(frozen=True)
class Choice:
    """How tokens are chosen."""

    samples: int = 1
    """Replies per prompt; more than one needs a temperature."""
    temperature: float = 0.0
    """0 is greedy."""
    seed: int = 0
    """Of the sampling."""


GREEDY = Choice()


def replies_to(
    model: EditableModel,
    prompts: Sequence[Prompt],
    room: Room,
    how: Choice = GREEDY,
    progress: Progress = NO_PROGRESS,
    label: str = "Generating",
    whole: bool = False,
) -> list[list[Said]]:
    """Per prompt its replies, parted.

    Only a reply in the chat template has thoughts: what goes on from a text is visible as a whole. The model stops by
    itself behind an answer, so that the room for thoughts is used by thoughts.

    Args:
        whole: refuse a prompt that leaves less room than a reply may take, thoughts not counted: where replies are
            judged, one cut short would be taken for all that the model says. Thoughts cut short are heard
            (``Said.answered``).

    Raises:
        ModelError: a prompt is too long, or the model's logits are not finite.
    """
    if whole:
        model.longest([prompt.ids for prompt in prompts], spare=room.reply)
    marks = marks_of(model.tokenizer)
    longer = [i for i, prompt in enumerate(prompts) if may_think(prompt, marks)]
    shorter = [i for i in range(len(prompts)) if i not in set(longer)]
    found: list[list[Said]] = [[] for _ in prompts]
    for some, tokens in ((shorter, room.reply), (longer, room.reply + room.thoughts)):
        if not some:
            continue
        said = model.generate(
            [prompts[i] for i in some],
            max_new_tokens=tokens,
            samples=how.samples,
            temperature=how.temperature,
            seed=how.seed,
            progress=progress,
            label=label,
        )
        for i, texts in zip(some, said, strict=True):
            found[i] = [heard(prompts[i], text, marks) for text in texts]
    return found


def heard(prompt: Prompt, reply: str, marks: Sequence[Marks]) -> Said:
    """The parts of a reply to a prompt, which is visible as a whole unless it stands in the chat template."""
    if not prompt.chat:
        return Said(reply)
    return parted(reply, marks, left_open(prompt.text, marks) is not None)


def may_think(prompt: Prompt, marks: Sequence[Marks]) -> bool:
    """Whether a reply may hold thoughts: it stands in a template that knows marks, and the prompt has closed none."""
    closed = any(prompt.text.rstrip().endswith(pair.closes) for pair in marks)
    return prompt.chat and bool(marks) and not closed
