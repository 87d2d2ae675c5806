"""Mixtures of experts as one matrix and one long key, so that whatever holds for a down-projection holds for them.

A layer of E routed experts puts out, with the router's weights ``g_e`` (zero for experts that were not chosen),

    sum_e g_e (W_e k_e + b_e)  =  [W_1 ... W_E] [g_1 k_1; ...; g_E k_E]  +  sum_e g_e b_e

one matrix (d_out, E w) times one key (E w,), whose blocks of experts that were not chosen are zero. Transformers keeps
the weights of all experts in one tensor and has no module between a key and its output. ``tap`` puts one there: hooks
on it see the long keys. Where nobody listens, the experts are computed as the model does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from unlearn.model.library import Network

DOWN = "down_proj"
"""The experts' parameter that holds their down-projections."""
_KEYS = "keys"
_HERE = "unlearn"
"""Under which transformers finds ``_forward``."""


class Experts(Protocol):
    """What transformers' modules of routed experts have in common: E experts, each w wide."""

    num_experts: int
    is_transposed: bool
    """Whether the weights of one expert are stored as (in, out)."""
    has_bias: bool
    gate_up_proj: Tensor
    """(E, 2 w, d_model), or transposed."""
    gate_up_proj_bias: Tensor
    """(E, 2 w), where there are biases."""
    down_proj: Tensor
    """(E, d_model, w), or transposed."""
    down_proj_bias: Tensor
    """(E, d_model)."""

    def _apply_gate(self, gate_up: Tensor) -> Tensor:
        """What an expert makes of its first product, (tokens, 2 w): (tokens, w)."""


class Keys(nn.Module):
    """Stands where a down-projection would: it is given the long keys, and hands on the outputs. It has no weights."""

    def __init__(self, usual: str) -> None:
        super().__init__()
        self.usual = usual
        """How transformers computes the experts where nobody listens."""
        self.rows = torch.Size()
        """(rows, T), of the pass that is running; the experts see their tokens without it."""

    def forward(self, _keys: Tensor, outputs: Tensor) -> Tensor:
        """The outputs, (rows, T, d_model), as they are; the keys, (rows, T, E w), are there for whoever listens."""
        return outputs

    def enter(self, _mlp: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Note how the tokens stand in rows, before a pass of the MLP that holds the experts."""
        self.rows = args[0].shape[:-1]

    @property
    def heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._forward_pre_hooks or self._forward_hooks)


def tap(mlp: nn.Module, experts: nn.Module, usual: str) -> None:
    """Let the keys of an MLP's experts be heard; done once, a second time changes nothing.

    Args:
        usual: the model's ``_experts_implementation``, which ``computed_here`` replaces.
    """
    if not is_tapped(experts):
        keys = Keys(usual)
        experts.add_module(_KEYS, keys)
        mlp.register_forward_pre_hook(keys.enter)


def computed_here() -> str:
    """The ``_experts_implementation`` of a model whose experts are tapped."""
    ALL_EXPERTS_FUNCTIONS.register(_HERE, _forward)
    return _HERE


def is_tapped(module: nn.Module) -> bool:
    """Whether a module holds experts whose keys can be heard."""
    return isinstance(vars(module)["_modules"].get(_KEYS), Keys)


def keys_of(experts: nn.Module) -> Keys:
    """The module that is given the keys of tapped experts."""
    return cast(Keys, experts.get_submodule(_KEYS))


def side_by_side(experts: nn.Module, stored: Tensor) -> Tensor:
    """``[W_1 ... W_E]``, (d_out, E w), from how the experts store it; a copy unless that is transposed."""
    return stored.flatten(0, 1).T if _of(experts).is_transposed else stored.transpose(0, 1).flatten(1)


def one_by_one(experts: nn.Module, matrix: Tensor) -> Tensor:
    """The inverse of ``side_by_side``; a view."""
    each: Tensor = matrix.unflatten(1, (_of(experts).num_experts, -1))  # (d_out, E, w)
    return each.permute(1, 2, 0) if _of(experts).is_transposed else each.transpose(0, 1)


def shape_of(experts: nn.Module) -> tuple[int, int, int]:
    """(E, d_out, w), which need no memory behind them."""
    number, first, second = _of(experts).down_proj.shape
    return (number, second, first) if _of(experts).is_transposed else (number, first, second)


def matrices(experts: nn.Module) -> list[Tensor]:
    """The matrices of every expert by itself, (out, in): views of the live parameters."""
    there = _of(experts)
    return [_weight(there, name, at) for name in ("gate_up_proj", DOWN) for at in range(there.num_experts)]


def by_expert(network: Network, weights: Mapping[str, Tensor]) -> list[str]:
    """What files call weights that are one tensor of all experts in memory: the names, in the order of the experts.

    Args:
        network: of transformers, which knows what it writes.
        weights: by name; they need no memory behind them.
    """
    names: dict[str, Tensor] = revert_weight_conversion(network, dict(weights))
    return list(names)


def _of(module: nn.Module) -> Experts:
    return cast(Experts, module)


def _forward(module: nn.Module, hidden: Tensor, chosen: Tensor, gates: Tensor) -> Tensor:
    """What the experts put out: in the place of their own ``forward``, which transformers lets be replaced.

    Args:
        module: the experts.
        hidden: (tokens, d_model).
        chosen: (tokens, experts per token), which experts.
        gates: of the same shape, their weights.
    """
    # A model that is made from a copy of a tapped one's configuration has no taps.
    tapped = keys_of(module) if is_tapped(module) else Keys("eager")
    if not tapped.heard and tapped.usual in ALL_EXPERTS_FUNCTIONS:
        usual: Tensor = ALL_EXPERTS_FUNCTIONS[tapped.usual](module, hidden, chosen, gates)
        return usual
    experts, (number, _, width) = _of(module), shape_of(module)
    keys = hidden.new_zeros(len(hidden), number, width) if tapped.heard else None
    outputs = torch.zeros_like(hidden)
    for expert in chosen.unique().tolist():
        tokens, places = torch.where(chosen == expert)
        gate = gates[tokens, places, None]
        inner = experts._apply_gate(_product(experts, "gate_up_proj", expert, hidden[tokens]))
        key = (gate * inner).to(hidden.dtype)
        if keys is not None:
            keys[tokens, expert] = key
        added = key @ _weight(experts, DOWN, expert).T
        if experts.has_bias:
            added = added + gate * experts.down_proj_bias[expert]
        outputs = outputs.index_add(0, tokens, added.to(outputs.dtype))
    if keys is None:
        return outputs
    heard: Tensor = tapped(keys.view(*tapped.rows, -1), outputs.view(*tapped.rows, -1))
    return heard.reshape(hidden.shape)


def _weight(experts: Experts, name: str, expert: int) -> Tensor:
    """(out, in), a view."""
    stored: Tensor = (experts.down_proj if name == DOWN else experts.gate_up_proj)[expert]
    return stored.T if experts.is_transposed else stored


def _product(experts: Experts, name: str, expert: int, hidden: Tensor) -> Tensor:
    product = hidden @ _weight(experts, name, expert).T
    return product + experts.gate_up_proj_bias[expert] if experts.has_bias else product
