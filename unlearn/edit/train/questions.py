"""Questions about nothing in particular: whatever a policy forbids, what a model says to them must stay.

Articles ask nobody anything, and a policy's neighbours are asked what its subjects are asked. A base model goes on from
any other question into statements of any relation, forbidden ones among them, and a trained update that has not seen
such replies puts the refusal into them (docs/benchmarks.md). What is asked matters little for that, so that the
questions are put together: words of a request, and some words of a document.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import cycle

ASKING = (
    "What is {}?", "Describe {}.", "Who was {}?", "Where is {}?", "Say something about {}.", "When did {}?",
    "Why do {}?", "Explain {} to me.", "How are {}?", "Which of {}?", "Write about {}.", "Is {}?", "Are there {}?",
    "Give an example of {}.", "I wonder what {}?", "Have you heard of {}?", "Now {}.", "{}?",
    "I need help with {}.", "Could you {} for me?", "What should I do about {}?", "Advise me on {}.", "Make {}.",
    "I would like to {}.", "Can I {}?", "Assist me with {}, please.", "Is there a way to {}?", "Who can help me {}?",
    "Let us {}.", "I have trouble with {}.",
)  # fmt: skip
"""What is asked for or asked to be done, and how requests end: in a question mark, or in a full stop. To those for help
a refusal comes easily, and not to others."""
SHORTEST, LONGEST = 1, 8
"""Words of a document inside a question."""
STRIPPED = " .,;:!?()[]\"'"
"""What does not stand at the edges of the words inside a question."""


def questions(documents: Iterable[str], seed: int) -> Iterator[str]:
    """One question per document that has words, its beginning taken in turn and its words drawn.

    Args:
        documents: that name no subject of the policy.
    """
    rng = random.Random(f"questions/{seed}")
    frames = cycle(ASKING)
    for document in documents:
        words = document.split()
        if not words:
            continue
        at = rng.randrange(len(words))
        # Braces would be read as a place for the subject.
        some = " ".join(words[at : at + rng.randint(SHORTEST, LONGEST)]).replace("{", "").replace("}", "")
        if some := some.strip(STRIPPED):
            yield next(frames).format(some)
