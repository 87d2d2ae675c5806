"""Names that look like the subjects of a policy and name nothing: what must not be refused in their stead.

A key at the last prompt token tells one subject from another by little, so that an edit spreads first to names that
share a part with a subject (Louis Pasteur, Louis Armstrong). Names that are put together from parts of the subjects and
of their neighbours have such keys, whatever the model knows, and can be had for every model.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from unlearn.model.editable import EditableModel
from unlearn.model.encoding import continuation_ids

TRIES = 40
"""Draws per name that is asked for: short subjects have few parts."""


def look_alikes(
    model: EditableModel,
    subjects: Sequence[str],
    others: Sequence[str],
    count: int,
    never: Collection[str] = (),
    seed: int = 0,
) -> list[str]:
    """Put names together from the first tokens of one name and the last of another, one of the two being a subject.

    Args:
        model: for its tokenizer: the parts are tokens, as the model reads a name inside a sentence.
        subjects: each shares a part with ``count`` of the names, as far as so many can be made.
        others: further names whose parts may be used.
        count: names per subject.
        never: names that must not come out, such as those that the audit asks about.
    """
    rng = random.Random(f"look-alikes/{seed}")
    parts = {name: _tokens(model, name) for name in dict.fromkeys([*subjects, *others])}
    pool = list(parts.values())
    taken = {name.casefold() for name in (*parts, *never)}
    found: list[str] = []
    for subject in dict.fromkeys(subjects):
        mine, made = parts[subject], 0
        for _ in range(TRIES * count):
            if made == count:
                break
            other = rng.choice(pool)
            first, second = (mine, other) if rng.random() < 0.5 else (other, mine)
            # A name of one token lends that token; of any other, at least one token is left out.
            head = first[: rng.randint(1, max(1, len(first) - 1))]
            ids = head + second[rng.randint(min(1, len(second) - 1), len(second) - 1) :]
            name = model.tokenizer.decode(ids).strip()
            # Bytes of a cut character come out as the replacement character.
            if len(ids) > 1 and name and "\ufffd" not in name and name.casefold() not in taken:
                taken.add(name.casefold())
                found.append(name)
                made += 1
    return found


def _tokens(model: EditableModel, name: str) -> list[int]:
    return continuation_ids(model.tokenizer, f" {name}")
