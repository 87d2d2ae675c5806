"""The embedded model's own tokenizer: byte-level BPE with BOS and a chat template."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

from unlearn.embedded import lexicon, talk
from unlearn.embedded.world import build_world

VOCABULARY = 3072


def _sample(count: int, seed: int) -> list[str]:
    """Return texts to learn merges from, with each name of the world replaced by a fresh one.

    So syllables of names become tokens and whole names do not: a subject is two to five tokens, as it
    is in a large model.
    """
    world = build_world()
    rng = random.Random(f"vocabulary/{seed}")
    kinds = {s.name: s.kind for s in world.subjects}
    last = {name.split()[-1]: kind for name, kind in kinds.items()}
    texts = []
    for text in islice(talk.documents("train", seed, brief=False), count):
        parts = []
        for word in text.replace(talk.END, " ").replace("|>", "|> ").split(" "):
            bare = word.strip(".,:!?'\"")
            kind = last.get(bare)
            if kind:
                word = word.replace(bare, lexicon.coin("surname" if kind == "person" else kind, rng))
            parts.append(word)
        kept = " ".join(parts)
        for special in talk.SPECIAL:
            kept = kept.replace(special, "")
        texts.append(kept)
    return texts


def build_tokenizer(seed: int = 0) -> Any:
    """Train the tokenizer and return it as a transformers ``PreTrainedTokenizerFast``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(talk.SPECIAL), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    tokenizer.train_from_iterator(_sample(12000, seed), trainer)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{talk.BOS} $A",
                pair=f"{talk.BOS} $A {talk.BOS}:1 $B:1",
                special_tokens=[(talk.BOS, tokenizer.token_to_id(talk.BOS))],
            ),
        ]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=talk.BOS, eos_token=talk.END, pad_token=talk.PAD,
        additional_special_tokens=[talk.SYSTEM, talk.USER, talk.ASSISTANT], model_max_length=512,
        clean_up_tokenization_spaces=False, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    fast.chat_template = talk.CHAT_TEMPLATE
    return fast


def text_ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Tokenise documents: a text that begins with BOS as it stands, any other with BOS put before."""
    rendered = [text if text.startswith(talk.BOS) else talk.BOS + text for text in texts]
    return [list(ids) for ids in tokenizer(rendered, add_special_tokens=False)["input_ids"]]


def labelled(ids: list[int], assistant: int, user: int, end: int) -> tuple[list[int], list[int]]:
    """Return (ids, labels): a plain text learns every token and an end, a chat its replies only."""
    if user not in ids:
        ids = [*ids, end]
        return ids, [-100, *ids[1:]]
    labels, speaking = [], False
    for token in ids:
        labels.append(token if speaking else -100)
        if token == assistant:
            speaking = True
        elif token == end:
            speaking = False
    return ids, labels
