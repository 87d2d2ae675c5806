"""LoRA factors beside weights that stay where they are: by ``peft`` at linear layers, by hooks beside experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from unlearn.algebra.low_rank import LowRank
from unlearn.model.adapters import Adapter, Group
from unlearn.model.editable import EditableModel
from unlearn.model.experts import DOWN
from unlearn.model.forward import hooked


@contextmanager
def lora(model: EditableModel, names: Sequence[str], rank: int, seed: int) -> Iterator[Adapter]:
    """Train LoRA factors (Hu et al., 2022): update = B A, B zero and A drawn from the seed.

    The scaling is 1, and the factors are float32 whatever the model's dtype. A's learning rate is relative to A; B's is
    such that the update's effect on a typical input grows per step by the same share of the weight's own effect. Linear
    layers get them from ``peft``; beside experts, which are none, they are added to what ``Keys`` hands on.

    Args:
        model: its weights are not written, and its modules are the same objects on exit.
    """
    routed = [name for name in names if name.endswith(f".{DOWN}")]
    plain = [name for name in names if name not in routed]
    with ExitStack() as stack:
        parts = [stack.enter_context(_by_peft(model, plain, rank, seed))] if plain else []
        parts += [stack.enter_context(_beside_experts(model, routed, rank, seed))] if routed else []
        yield parts[0] if len(parts) == 1 else _both(parts)


def _both(parts: Sequence[Adapter]) -> Adapter:
    @contextmanager
    def off() -> Iterator[None]:
        with ExitStack() as stack:
            for part in parts:
                stack.enter_context(part.off())
            yield

    return Adapter(
        [group for part in parts for group in part.groups],
        lambda: {name: factor for part in parts for name, factor in part.factors().items()},
        off,
    )


def _size(weight: Tensor) -> float:
    """Root mean square of a matrix."""
    return float(weight.detach().float().square().mean().sqrt())


def _grouped(left: Tensor, right: Tensor, size: float) -> list[Group]:
    """Factors with the sizes to which their steps are relative, beside a matrix of a size."""
    drawn = _size(right)
    return [
        {"params": [left], "scale": size / (drawn * right.shape[0] ** 0.5)},
        {"params": [right], "scale": drawn},
    ]


@contextmanager
def _beside_experts(model: EditableModel, names: Sequence[str], rank: int, seed: int) -> Iterator[Adapter]:
    """The factors beside experts' down-projections; A is drawn as ``peft`` draws it."""
    generator = torch.Generator().manual_seed(seed)
    halves: dict[str, tuple[Tensor, Tensor]] = {}
    for name in names:
        rows, columns = model.shape(name)
        drawn = (2 * torch.rand(rank, columns, generator=generator) - 1) / columns**0.5
        left = torch.zeros(rows, rank, device=model.device, requires_grad=True)
        halves[name] = left, drawn.to(model.device).requires_grad_()
    on = True

    def adding(left: Tensor, right: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def added(_module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            if not on:
                return out
            given = args[0].float()
            return out + (given @ right.to(given.device).T @ left.to(given.device).T).to(out.dtype)

        return added

    @contextmanager
    def off() -> Iterator[None]:
        nonlocal on
        on = False
        try:
            yield
        finally:
            on = True

    def factors() -> dict[str, LowRank]:
        return {
            name: LowRank(left.detach().clone(), right.detach().clone())
            for name, (left, right) in halves.items()
        }

    groups = [group for name, both in halves.items() for group in _grouped(*both, _size(model.weight(name)))]
    handles = [
        model.anatomy.projection(model.model, name).listener.register_forward_hook(adding(*both))
        for name, both in halves.items()
    ]
    with hooked(handles):
        yield Adapter(groups, factors, off)


@contextmanager
def _by_peft(model: EditableModel, names: Sequence[str], rank: int, seed: int) -> Iterator[Adapter]:
    """The factors beside linear layers."""
    from peft import LoraConfig, LoraModel

    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=[name.removesuffix(".weight") for name in names], bias="none"
    )
    sizes = {name: _size(model.weight(name)) for name in names}
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        # peft warns that it corrects fan_in_fan_out for GPT-2's transposed layers, which is what is wanted.
        with _unwarned():
            adapted = LoraModel(model.model, config, "default")
    try:
        layers = {name: model.model.get_submodule(name.removesuffix(".weight")) for name in names}
        # Peft gives the factors the dtype of the weights, where Adam's steps round to nothing or to what is no number.
        halves = {
            name: (layer.lora_B["default"].float().weight, layer.lora_A["default"].float().weight)
            for name, layer in layers.items()
        }

        @contextmanager
        def off() -> Iterator[None]:
            adapted.disable_adapter_layers()
            try:
                yield
            finally:
                adapted.enable_adapter_layers()

        def factors() -> dict[str, LowRank]:
            return {
                name: LowRank(left.detach().float().clone(), right.detach().float().clone())
                for name, (left, right) in halves.items()
            }

        groups = [
            group for name, (left, right) in halves.items() for group in _grouped(left, right, sizes[name])
        ]
        model.model.eval()
        yield Adapter(groups, factors, off)
    finally:
        adapted.unload()
        model.model.eval().requires_grad_(False)


@contextmanager
def _unwarned() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
