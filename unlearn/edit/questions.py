"""Questions about nothing in particular: whatever a policy forbids, they must be answered as before.

Articles ask nobody anything, and a policy's neighbours are asked what its subjects are asked. An update that is held to
these alone is free at the end of any other question, and says its refusal there (docs/benchmarks.md). For that end it
matters little what the question says, so that these are put together: words with which a question begins, and some
words of a document.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import cycle

BEGINNINGS = (
    "What is", "Who was", "Where is", "When did", "Why do", "How are", "Which of", "Is", "Are there",
    "Could you explain", "I wonder what", "Have you heard of",
)  # fmt: skip
SHORTEST, LONGEST = 1, 8
"""Words of a document in a question."""
STRIPPED = " .,;:!?()[]{}\"'"
"""What does not stand at the edges of the words inside a question."""


def questions(documents: Iterable[str], seed: int) -> Iterator[str]:
    """One question per document that has words, its beginning taken in turn and its words drawn.

    Args:
        documents: that name no subject of the policy.
        seed: of the draw.
    """
    rng = random.Random(f"questions/{seed}")
    beginnings = cycle(BEGINNINGS)
    for document in documents:
        words = document.split()
        if not words:
            continue
        at = rng.randrange(len(words))
        some = " ".join(words[at : at + rng.randint(SHORTEST, LONGEST)]).strip(STRIPPED)
        if some:
            # Braces would be read as a place for the subject.
            yield f"{next(beginnings)} {some}?".replace("{", "").replace("}", "")
