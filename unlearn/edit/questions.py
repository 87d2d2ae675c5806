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

ASKING = (
    "What is {}?", "Describe {}.", "Who was {}?", "Where is {}?", "Say something about {}.", "When did {}?",
    "Why do {}?", "Explain {} to me.", "How are {}?", "Which of {}?", "Write about {}.", "Is {}?", "Are there {}?",
    "Give an example of {}.", "I wonder what {}?", "Have you heard of {}?", "Now {}.", "{}?",
)  # fmt: skip
"""What is asked for, and how requests end: in a question mark, or in a full stop."""
SHORTEST, LONGEST = 1, 8
"""Words of a document inside a question."""
STRIPPED = " .,;:!?()[]\"'"
"""What does not stand at the edges of the words inside a question."""


def questions(documents: Iterable[str], seed: int) -> Iterator[str]:
    """One question per document that has words, its beginning taken in turn and its words drawn.

    Args:
        documents: that name no subject of the policy.
        seed: of the draw.
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
