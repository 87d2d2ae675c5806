"""Weights that accelerate keeps on disk or in the host's memory while nothing is computed with them.

The module then has a parameter without memory behind it, and a hook that knows where the numbers are. They are read
there, and changed there: what is put in their place lies in the host's memory for as long as it is needed, and the
files of the model are never written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from unlearn.errors import ModelError
from unlearn.model import fourbit

if TYPE_CHECKING:
    from accelerate.utils import OffloadedWeightsLoader


Read: TypeAlias = Callable[[], Tensor]
"""Gives a tensor: the live one, or what is read for it."""


class Kept(NamedTuple):
    """Where the numbers of an offloaded tensor are."""

    loader: OffloadedWeightsLoader
    """Reads from its ``state_dict`` what is there, and the rest from files."""
    key: str


def offloaded(network: nn.Module) -> bool:
    """Whether some parameters of a model are not in memory between two passes."""
    return any(parameter.is_meta for parameter in network.parameters())


def held(module: nn.Module, name: str) -> Tensor:
    """A parameter or buffer of a module: itself where it is in memory, else what is read for it.

    Raises:
        ModelError: there are no numbers behind it anywhere.
    """
    tensor: Tensor = getattr(module, name).detach()
    if not tensor.is_meta:
        return tensor
    kept = _kept(module, name)
    found: Tensor = kept.loader[kept.key]
    return found


def whole(module: nn.Module, name: str) -> Tensor:
    """A parameter or buffer as it is computed with: ``held``, a weight in 4 bits dequantised, (d_out, d_in).

    What is computed beside a layer at the moment is part of its weight.
    """
    if name != "weight":
        return held(module, name)
    found = fourbit.matrix(module) if fourbit.is_packed(module) else held(module, name)
    update = fourbit.added(module)
    if update is None:
        return found
    dense = update.dense().T if isinstance(module, Conv1D) else update.dense()
    return (found.float() + dense).to(found.dtype)


def tensors(network: nn.Module) -> Iterator[tuple[str, Read]]:
    """Every tensor of a model's ``state_dict()`` by name; each is read, if need be, when it is called for.

    What belongs to a matrix in 4 bits is left out.
    """
    apart = tuple(f"{path}.weight" for path, _ in fourbit.packed(network))
    for name in network.state_dict():
        if not name.startswith(apart):
            yield name, _reading(network, name)


def parameters(network: nn.Module) -> dict[str, Read]:
    """Every parameter of a model by name, tied ones once; as ``tensors``. A weight is ``whole``."""
    return {name: _reading(network, name) for name, _ in network.named_parameters()}


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each of these."""
    matrices = {f"{path}.weight": fourbit.shape(module) for path, module in fourbit.packed(network)}
    return {name: matrices.get(name, tuple(one.shape)) for name, one in network.named_parameters()}


def numbers(network: nn.Module) -> int:
    """How many numbers all of these are together."""
    return sum(prod(shape) for shape in shapes(network).values())


def _reading(network: nn.Module, name: str) -> Read:
    path, _, last = name.rpartition(".")
    return lambda: whole(network.get_submodule(path), last)


@contextmanager
def replaced(module: nn.Module, name: str, new: Tensor) -> Iterator[None]:
    """Within it, a parameter has other numbers; on exit it is what it was, bit for bit.

    Args:
        new: of the parameter's shape.
    """
    tensor: Tensor = getattr(module, name).detach()
    if not tensor.is_meta:
        old = tensor.clone()
        tensor.copy_(new)
        del new
        try:
            yield
        finally:
            tensor.copy_(old)
        return
    loader, key = _kept(module, name)
    before = loader.state_dict.get(key)
    loader.state_dict[key] = new.to("cpu", tensor.dtype).contiguous()
    try:
        yield
    finally:
        if before is None:
            del loader.state_dict[key]
        else:
            loader.state_dict[key] = before


def _kept(module: nn.Module, name: str) -> Kept:
    from accelerate.hooks import AlignDevicesHook, SequentialHook
    from accelerate.utils import OffloadedWeightsLoader, PrefixedDataset

    hook = vars(module).get("_hf_hook")
    for one in hook.hooks if isinstance(hook, SequentialHook) else [hook]:
        read = one.weights_map if isinstance(one, AlignDevicesHook) and one.offload else None
        if isinstance(read, PrefixedDataset) and isinstance(read.dataset, OffloadedWeightsLoader):
            return Kept(read.dataset, f"{read.prefix}{name}")
    raise ModelError("this model has no weights in memory, so none of them can be read or edited")
