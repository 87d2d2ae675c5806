"""A model that was just loaded, tried once: its weights are numbers, its tokenizer's ids are rows of its embedding."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn

from unlearn.errors import ModelError
from unlearn.model.boundary import AGAIN, reading
from unlearn.model.encoding import encoded, text_ids
from unlearn.model.library import Network, Tokenizer
from unlearn.model.offload import parameters
from unlearn.model.templates import rendered

TEXT = "Hello."
PADDED = 256
"""Rows that an embedding may have beyond its vocabulary: it is often padded to a multiple of as much."""


def rows_of(model: Network) -> int:
    """How many ids a transformers model takes: the rows of its embedding."""
    return int(model.get_input_embeddings().weight.shape[0])


@torch.inference_mode()
def tried(model: Network, tokenizer: Tokenizer, name: str) -> None:
    """Let a model compute the logits behind a short text.

    Raises:
        ModelError: ids outside of the embedding, weights or logits that are not finite, or whatever torch says.
    """
    ids = suited(model, tokenizer, name)
    every = ((key, read()) for key, read in parameters(model).items())
    for key, numbers in chain(every, model.named_buffers()):
        refuse_not_finite(numbers, key, name)
    with reading(name, "it cannot be run"):
        logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits
    if not torch.isfinite(logits).all():
        raise ModelError(f"{name}: its logits behind a short text are not finite; {AGAIN}")


def suited(model: Network, tokenizer: Tokenizer, name: str) -> list[int]:
    """Look whether a tokenizer is a model's, whose weights need not be there; the ids of a short text.

    Raises:
        ModelError: it has no fast version, or writes ids outside of the embedding.
    """
    if not tokenizer.is_fast:
        raise ModelError(f"{name}: its tokenizer has no fast version; look-up tokens need offset mappings")
    _refuse_foreign(model, tokenizer, name)
    with reading(name, "its tokenizer"):
        ids = text_ids(tokenizer, TEXT) or [0]
        chat = chat_ids(tokenizer, TEXT)
    _refuse_outside(model, ids, name, "a text")
    _refuse_outside(model, chat, name, "its chat template")
    return ids


def refuse_not_finite(numbers: Tensor, key: str, name: str) -> None:
    """Refuse a tensor of a model that holds numbers which are not finite."""
    # One pass without a copy: a sum in which one number is not finite is not finite.
    if numbers.is_floating_point() and not torch.isfinite(numbers.sum(dtype=torch.float32)):
        raise ModelError(f"{name}: {key} holds numbers that are not finite; {AGAIN}")


def refuse_misfit(tokenizer: Tokenizer, rows: int, name: str) -> None:
    """Refuse a tokenizer, given apart from a model, that is another model's.

    Embeddings are padded, so that a vocabulary may be somewhat smaller (`PADDED`).

    Args:
        tokenizer: with ``name_or_path``.

    Raises:
        ModelError: it writes ids that have no row, or its vocabulary is of another size.
    """
    learned = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    largest, size = max(learned.values(), default=0), len(tokenizer)
    if largest >= rows:
        said = f"writes ids up to {largest}"
    elif size < rows - max(PADDED, rows // 32):
        said = f"knows {size} tokens"
    else:
        return
    raise ModelError(
        f"the tokenizer of {tokenizer.name_or_path} {said}, and the embedding of {name} has {rows} rows: they "
        "belong to different models; give the tokenizer that this model was trained with"
    )


def chat_ids(tokenizer: Tokenizer, question: str) -> list[int]:
    """Ids of a question in the chat template; none where there is no template."""
    if not tokenizer.chat_template:
        return []
    asked = rendered(tokenizer, [{"role": "user", "content": question}])
    return list(encoded(tokenizer, asked, rendered=True).ids)


def refusing_foreign(model: Network, tokenizer: Tokenizer, name: str) -> None:
    """Let a model refuse ids for which its embedding has no row; torch would say it of an index, or end the process.

    Whatever feeds the model from now on, its embedding raises a ModelError that names the first such token.
    """
    embedding, rows = model.get_input_embeddings(), rows_of(model)

    def refuse(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        largest = max((int(ids.max()) for ids in given if ids.numel()), default=0)
        if largest >= rows:
            raise ModelError(
                f"a text holds {tokenizer.convert_ids_to_tokens(largest)!r}, which the tokenizer of {name} takes for "
                f"one token (id {largest}), and the embedding has {rows} rows; leave it out of the text"
            )

    embedding.register_forward_pre_hook(refuse)


def _refuse_foreign(model: Network, tokenizer: Tokenizer, name: str) -> None:
    """Refuse a tokenizer that writes ids which the model has no row for.

    Tokens that were added to the vocabulary, such as one for padding or for images, may lie outside: hardly any text
    has them, and one that does is refused when it is fed (``refusing_foreign``).
    """
    learned = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    _refuse_outside(model, [max(learned.values(), default=0)], name, "the vocabulary")
    named = {"bos_token": tokenizer.bos_token_id, "eos_token": tokenizer.eos_token_id}
    for what, token in named.items():
        _refuse_outside(model, [] if token is None else [token], name, what)


def _refuse_outside(model: Network, ids: list[int], name: str, what: str) -> None:
    rows, largest = rows_of(model), max(ids, default=0)
    if largest >= rows:
        raise ModelError(
            f"{name}: its tokenizer writes the id {largest} ({what}), and its embedding has {rows} rows: they belong "
            "to different models"
        )
