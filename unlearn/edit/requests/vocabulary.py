"""Neighbours from the model's own vocabulary: the words whose embeddings are nearest to those of a subject.

Whom an edit refuses beside its subjects depends on how many others it is trained to leave alone: SmolLM2, told to keep
nine countries, refused 46 % of the others, and with 49 12 % (docs/notes/lab.md). A vocabulary holds thousands of
names, and which are of a subject's kind its embeddings say: those of Nepal have Bhutan and Bangladesh beside them. What
the model knows of them does not matter: it keeps what it says.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain, zip_longest

import torch

from unlearn.matching import words
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import continuation_ids

MARKS = ("Ġ", "▁", "##")
"""What a token begins with that stands for a whole word (byte-level, SentencePiece)."""
SHORTEST = 3
"""Letters of a word that may be a name."""
STEM = 4
"""Letters that two words of one stem begin with: what is asked about an Iranian is asked about Iran."""


@torch.inference_mode()
def near_words(model: EditableModel, subjects: Sequence[str], never: Collection[str], each: int) -> list[str]:
    """Words of the vocabulary that are of the subjects' kind.

    Args:
        model: for its embeddings, in cosines about their mean.
        subjects: one that is written with a capital has names as its neighbours.
        never: names of which no word shares a stem with what comes out, besides the subjects.
        each: words per subject.

    Returns:
        The nearest word of every subject, then the second nearest, and so on, each once.
    """
    taken = {_stem(word) for name in (*subjects, *never) for word in words(name)}
    names, others = _words(model, taken)
    table = model.model.get_input_embeddings().weight.float()
    about = table - table.mean(0)
    about = about / about.norm(dim=1, keepdim=True).clamp_min(1e-12)
    ranked = []
    for subject in dict.fromkeys(subjects):
        pool = names if subject.split()[-1][0].isupper() else others
        ids = torch.tensor(list(pool), device=about.device)
        if len(ids):
            alike = about[ids] @ about[continuation_ids(model.tokenizer, f" {subject}")].mean(0)
            nearest = ids[alike.topk(min(each, len(ids))).indices]
            ranked.append([pool[i] for i in nearest.tolist()])
    return [word for word in dict.fromkeys(chain.from_iterable(zip_longest(*ranked))) if word]


def _stem(word: str) -> str:
    return word[:STEM]


def _words(model: EditableModel, taken: set[str]) -> tuple[dict[int, str], dict[int, str]]:
    """Whole words of the vocabulary by id: names, which are there in capitals alone, and others."""
    tokenizer = model.tokenizer
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    found = {}
    for i, token in enumerate(tokens):
        word = tokenizer.decode([i]).strip() if str(token).startswith(MARKS) else ""
        if len(word) >= SHORTEST and word.isalpha() and not taken.intersection(map(_stem, words(word))):
            found[i] = word
    small = {word for word in found.values() if word == word.lower()}
    names = {i: word for i, word in found.items() if word.istitle() and word.lower() not in small}
    return names, {i: word for i, word in found.items() if word in small}
