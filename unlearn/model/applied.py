"""An update on a model for a while: added to the weights, or, where these are quantised, computed beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from unlearn.algebra.low_rank import LowRank
from unlearn.model import fourbit
from unlearn.model.anatomy import Anatomy
from unlearn.model.fit import summed
from unlearn.model.offload import replaced


@contextmanager
def applied(
    network: nn.Module, anatomy: Anatomy, factors: Mapping[str, LowRank], storage_dtype: torch.dtype
) -> Iterator[None]:
    """Within it, an update is in force; on exit the model is bit-identical to before.

    Of a quantised model all layers get theirs beside them, also those that are not quantised: so an adapter computes
    what was measured.

    Args:
        factors: by weight name.
        storage_dtype: to which changed weights are rounded.

    Raises:
        ModelError: the update is not finite, or a weight with it. Nothing is written then.
    """
    with ExitStack() as undone:
        if fourbit.packed(network):
            for name, delta in factors.items():
                undone.enter_context(fourbit.beside(anatomy.projection(network, name).module, delta, name))
        else:
            edited = {
                name: summed(anatomy.named(network, name), delta, name, storage_dtype)
                for name, delta in factors.items()
            }
            for name in factors:  # popped, since two more copies of all weights may not fit
                there = anatomy.projection(network, name)
                undone.enter_context(replaced(there.module, there.parameter, there.stored(edited.pop(name))))
        yield
