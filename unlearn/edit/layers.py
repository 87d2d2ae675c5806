"""Which layers are written: those that a policy names, or a share of the depth."""

from __future__ import annotations

from unlearn.errors import PolicyError
from unlearn.model.anatomy import Anatomy
from unlearn.model.editable import EditableModel
from unlearn.policy.settings import Layered, NullSpace, Rome, UltraEdit
from unlearn.policy.settings_base import Settings
from unlearn.policy.settings_trained import (
    FineTune,
    GradDiff,
    Lora,
    Mend,
    Npo,
    NullSpaceTuning,
    RepSelect,
    Rmu,
)

FEWEST = 4
"""Layers that share a residual at the subject's token; a shallow model's share of the depth would be one or two."""

LAST = 3
"""Blocks at the end whose MLPs MEND writes (published)."""


def default_layers(anatomy: Anatomy, look_up: str) -> tuple[int, ...]:
    """The layers that `auto` stands for.

    At the subject's last token the family's published share of the depth (Llama-3-8B, 32 layers: 4 to 8), widened in a
    shallow model to four layers, so that none has to carry much. At the last prompt token the subject and the relation
    have to meet first: a third to two thirds, the last five at most.
    """
    depth = anatomy.layers
    if look_up == "subject":
        first, last = (round(depth * share) for share in anatomy.family.early)
        down = True
        while last - first < min(FEWEST, depth - 1) - 1:
            first, last = (first - 1, last) if (down and first) or last + 2 >= depth else (first, last + 1)
            down = not down
        return tuple(range(first, min(last, first + 4) + 1))
    first, last = depth // 3, min(2 * depth // 3, depth - 1)
    return tuple(range(max(first, last - 4), last + 1))


def layers_of(settings: Settings, model: EditableModel) -> tuple[int, ...]:
    """The layers that a method changes, ascending; none for one that leaves the weights alone.

    Args:
        settings: of the method, ``look_up`` settled.

    Raises:
        PolicyError: a layer that the model does not have.
    """
    depth, named = model.anatomy.layers, asked(settings)
    wrong = [layer for layer in named or () if not 0 <= layer < depth]
    if wrong:
        key = (
            "layers"
            if isinstance(settings, Layered | NullSpace | NullSpaceTuning | UltraEdit | Mend)
            else "layer"
        )
        raise PolicyError(f"method.{key}: {model.name} has layers 0 to {depth - 1}, not {wrong}")
    if isinstance(settings, Rmu):  # what it steers, and the two layers before it
        last = named[0] if named else min(max(2, round(depth / 4)), depth - 1)
        return tuple(range(max(0, last - 2), last + 1))
    return named or _auto(settings, model.anatomy)


def asked(settings: Settings) -> tuple[int, ...] | None:
    """The layers that a policy names; None for `auto`, and for a method that has no choice."""
    match settings:
        case Layered() | NullSpace() | NullSpaceTuning() | UltraEdit() | Mend():
            return None if settings.layers == "auto" else tuple(sorted(set(settings.layers)))
        case Rome() | FineTune() | Rmu():
            return None if settings.layer == "auto" else (settings.layer,)
    return None


def _auto(settings: Settings, anatomy: Anatomy) -> tuple[int, ...]:
    """What `auto` stands for."""
    match settings:
        case Rome():
            middle = default_layers(anatomy, settings.look_up)
            return (middle[len(middle) // 2],)
        case Layered() | NullSpace():
            return default_layers(anatomy, settings.look_up)
        case NullSpaceTuning(look_up="both"):
            # More layers reach more phrasings; solved for, they lost neighbours (docs/benchmarks.md).
            return tuple(sorted({*default_layers(anatomy, "last"), *default_layers(anatomy, "subject")}))
        case NullSpaceTuning():
            return default_layers(anatomy, settings.look_up)
        case UltraEdit():
            return tuple(range(anatomy.layers * 23 // 32, anatomy.layers))
        case FineTune():
            return (anatomy.layers // 2,)
        case Mend():
            return tuple(range(max(0, anatomy.layers - LAST), anatomy.layers))
        case Lora() | GradDiff() | Npo() | RepSelect():
            return tuple(range(anatomy.layers))
    return ()
