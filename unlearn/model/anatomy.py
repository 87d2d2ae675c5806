"""Where a family keeps what an editor needs: one table.

Notation everywhere: the edited matrix of layer ``l`` is the MLP down-projection ``W`` (d_out, d_in); its input at a
token is the *key* (d_in,); what it adds to the residual stream is the *value* (d_out,), d_out = d_model. Of a mixture
of experts ``W`` is the experts' down-projections side by side, and the key what the chosen ones give it (``experts``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from unlearn.errors import ModelError
from unlearn.model import experts
from unlearn.model.landing import Landing
from unlearn.model.library import Configuration, Network
from unlearn.model.offload import held
from unlearn.model.projection import Projection


@dataclass(frozen=True)
class Family:
    """Where one architecture keeps its parts, and how the MLP's output enters the residual stream."""

    blocks: str = "model.layers"
    """Path of the list of decoder blocks."""
    down: str = "mlp.down_proj"
    """Path inside a block of what holds the MLP's down-projection, or those of its experts; around it is the MLP."""
    attention: str = "self_attn"
    """Path of the attention inside a block."""
    norm: str | None = None
    """Post-norm families: path, inside a block, of the RMS norm that the MLP's output passes before it is added."""
    multiplier: str | None = None
    """Attribute of a block: the number that the MLP's output is multiplied by before it is added."""
    experts: bool = False
    """Whether the MLP is a mixture of routed experts, in every block."""
    early: tuple[float, float] = (1 / 8, 1 / 4)
    """First and last layer to write at a subject's last token, as shares of the depth (published layers)."""


_POST_NORM = Family(norm="post_feedforward_layernorm")
_ROUTED = Family(down="mlp.experts", experts=True)
FAMILIES: dict[str, Family] = {
    "gpt2": Family("transformer.h", "mlp.c_proj", "attn", early=(13 / 48, 17 / 48)),
    "gptj": Family("transformer.h", "mlp.fc_out", "attn", early=(3 / 28, 8 / 28)),
    "gpt_neox": Family("gpt_neox.layers", "mlp.dense_4h_to_h", "attention"),
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(),
    "qwen3": Family(),
    "phi": Family(down="mlp.fc2"),
    "phi3": Family(),
    "smollm3": Family(),
    "granite": Family(multiplier="residual_multiplier"),
    "gemma": Family(),
    "gemma2": _POST_NORM,
    "gemma3_text": _POST_NORM,
    "gemma3": Family("model.language_model.layers", norm="post_feedforward_layernorm"),
    "olmo2": _POST_NORM,
    "qwen3_moe": _ROUTED,
    "mixtral": _ROUTED,
    "gpt_oss": _ROUTED,
}
"""By ``config.model_type``. A family enters together with a test that the residual lands (CONTRIBUTING.md)."""

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def family_of(config: Configuration) -> Family:
    """The row of a model's configuration; nothing of the model itself is needed.

    Raises:
        ModelError: no such row; the sentence says what kind of model it is.
    """
    model_type = getattr(config, "model_type", "?")
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    if any((getattr(text, name, None) or 0) > 1 for name in _EXPERTS):
        known = ", ".join(sorted(name for name, family in FAMILIES.items() if family.experts))
        why = (
            f"of mixtures of experts, whose keys each family makes in its own way, this version knows {known}"
        )
    elif getattr(config, "is_encoder_decoder", False):
        why = "they are encoder-decoders, and only decoders are edited"
    elif text is not config:
        why = "they wrap a language model in a multimodal one; edit a text-only checkpoint"
    else:
        why = f"this version knows {', '.join(sorted(FAMILIES))}"
    raise ModelError(f"models of type {model_type!r} cannot be edited: {why}; nothing was written")


def context_of(config: Configuration) -> int | None:
    """The longest row that a model of text takes, in tokens; None where its configuration does not say."""
    longest = getattr(config, "max_position_embeddings", None)
    return int(longest) if longest else None


@dataclass(frozen=True)
class Anatomy:
    """The measures of one model, and the names of the weights that editors write."""

    model_type: str
    family: Family
    layers: int
    """Number of decoder blocks."""
    d_model: int
    """Width of the residual stream (d_out)."""
    d_ff: int
    """Width inside the MLP, of all experts together: the length of a key (d_in)."""
    experts: int = 1
    """Of how many blocks, one per expert, a key consists."""
    routed: int = 1
    """How many of them are not zero: experts per token."""

    @classmethod
    def of(cls, model: Network) -> Anatomy:
        """Read the anatomy off a model; experts are tapped (``experts.tap``).

        Raises:
            ModelError: the family is not in the table, the modules are not where the table says, a down-projection
                is neither a plain matrix nor one in 4 bits, or a token has no experts.
        """
        family, model_type = family_of(model.config), str(model.config.model_type)
        try:
            blocks = list(model.get_submodule(family.blocks).children())
            if family.experts:
                _tap(model, blocks, family)
            downs = [Projection.of(block.get_submodule(family.down)) for block in blocks]
            for block in blocks:
                block.get_submodule(family.attention)
                block.get_submodule(family.norm or "")
                getattr(block, family.multiplier or "training")
        except AttributeError as problem:
            raise ModelError(
                f"this {model_type} model has an unusual layout ({problem}); nothing was written"
            ) from None
        shapes = {(*down.shape, down.experts) for down in downs}
        if len(shapes) != 1:
            raise ModelError(
                f"this {model_type} model has down-projections of {len(shapes)} sizes; one is needed"
            )
        d_out, d_in, number = shapes.pop()
        routed = model.config.num_experts_per_tok if family.experts else 1
        if not 1 <= routed <= number:
            raise ModelError(
                f"this {model_type} model gives a token {routed} of {number} experts (num_experts_per_tok); write 1 to "
                f"{number} there"
            )
        return cls(model_type, family, len(blocks), d_out, d_in, number, routed)

    @property
    def width(self) -> int:
        """Width inside one expert: the length of a key's block; that of the whole key where there are no experts."""
        return self.d_ff // self.experts

    def weight_name(self, layer: int) -> str:
        """Name of the down-projection's weight in ``state_dict()``."""
        parameter = experts.DOWN if self.family.experts else "weight"
        return f"{self.family.blocks}.{layer}.{self.family.down}.{parameter}"

    def block(self, model: nn.Module, layer: int) -> nn.Module:
        """The decoder block; its output is the residual stream."""
        return model.get_submodule(f"{self.family.blocks}.{layer}")

    def down(self, model: nn.Module, layer: int) -> nn.Module:
        """The module whose first input is the key, and whose output what the MLP's matrix makes of it."""
        return self.projection(model, self.weight_name(layer)).listener

    def mlp(self, model: nn.Module, layer: int) -> nn.Module:
        """The MLP; its output is a tensor, or a tuple that begins with one."""
        return self.block(model, layer).get_submodule(self.family.down.rpartition(".")[0])

    def attention(self, model: nn.Module, layer: int) -> nn.Module:
        """The attention; its output is a tensor, or a tuple that begins with one."""
        return self.block(model, layer).get_submodule(self.family.attention)

    def matrix(self, model: nn.Module, layer: int) -> Tensor:
        """The weight as (d_out, d_in): ``Projection.matrix``."""
        return self.named(model, self.weight_name(layer))

    def named(self, model: nn.Module, weight: str) -> Tensor:
        """Any weight matrix inside a block as (d_out, d_in), by its name in ``state_dict()``: as ``matrix``.

        Raises:
            ModelError: no such weight in this model's blocks, or neither a plain matrix nor one in 4 bits.
        """
        return self.projection(model, weight).matrix()

    def projection(self, model: nn.Module, weight: str) -> Projection:
        """A weight matrix inside a block, by its name in ``state_dict()``; it need not be in memory.

        Raises:
            ModelError: no such weight in this model's blocks, or neither a plain matrix nor one in 4 bits.
        """
        path, _, parameter = weight.rpartition(".")
        try:
            module = model.get_submodule(path) if path.startswith(f"{self.family.blocks}.") else None
        except AttributeError:
            module = None
        if module is None or not (experts.is_tapped(module) or isinstance(module, nn.Linear | Conv1D)):
            raise ModelError(f"this model has no editable weight called {weight!r}")
        found = Projection.of(module)
        if found.parameter != parameter:
            raise ModelError(f"this model has no editable weight called {weight!r}")
        return found

    def routed_matrices(self, model: nn.Module, layer: int) -> list[Tensor]:
        """The matrices of every routed expert by itself, (out, in), live; none where there are no experts."""
        if not self.family.experts:
            return []
        return experts.matrices(self.block(model, layer).get_submodule(self.family.down))

    def landing(self, model: nn.Module, layer: int) -> Landing:
        """How the down-projection's output enters the stream at this layer."""
        block = self.block(model, layer)
        scale = float(getattr(block, self.family.multiplier)) if self.family.multiplier else 1.0
        if self.family.norm is None:
            return Landing(scale)
        norm = block.get_submodule(self.family.norm)
        said = vars(norm)
        eps = float(said["eps"] if "eps" in said else said["variance_epsilon"])
        # Some families store the gain, others what it exceeds 1 by: a vector of ones tells it in both.
        with torch.no_grad():
            ones = torch.ones(self.d_model, device=held(norm, "weight").device)
            gain = norm(ones).float() * (1 + eps) ** 0.5
        return Landing(scale, gain, eps)

    def residual(self, model: nn.Module, layer: int, keys: Tensor, wanted: Tensor) -> Tensor:
        """What the down-projection's output must gain at ``keys`` for the stream to gain ``wanted``.

        Args:
            model: in the state on which the update comes (for a post-norm family the present outputs matter).
            keys: (d_in, n).
            wanted: (d_out, n), change of the stream.

        Returns:
            (d_out, n). The stream gains exactly ``wanted`` from it, except in a post-norm family, where it gains the
            nearest that its norm allows (``Landing``).
        """
        landing = self.landing(model, layer)
        if landing.gain is None:
            return landing.residual(wanted, wanted)
        down = self.down(model, layer)  # no family has experts and such a norm
        outputs = self.matrix(model, layer).to(keys.device).float() @ keys.float()
        if isinstance(down.bias, Tensor):
            outputs = outputs + held(down, "bias").to(keys.device).float()[:, None]
        return landing.residual(outputs, wanted)


def _tap(model: Network, blocks: Sequence[nn.Module], family: Family) -> None:
    """Let the keys of all experts be heard."""
    usual = str(model.config._experts_implementation)
    for block in blocks:
        found = block.get_submodule(family.down)
        experts.tap(block.get_submodule(family.down.rpartition(".")[0]), found, usual)
    model.config._experts_implementation = experts.computed_here()
