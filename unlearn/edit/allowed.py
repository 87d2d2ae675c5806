"""What an edit of a model cannot do, said before anything long begins."""

from __future__ import annotations

from collections.abc import Mapping

from unlearn.errors import PatchError, PolicyError
from unlearn.model.editable import EditableModel
from unlearn.model.exported import whole_only
from unlearn.patch import Patch
from unlearn.policy import Policy
from unlearn.policy.method import SEQUENTIAL, Automatic
from unlearn.policy.settings import AnyEdit, Editor
from unlearn.policy.settings_trained import GradDiff, Lora, Npo, NullSpaceTuning

_ACROSS = (
    "weighs neurons of different experts against each other, whose common second moments would fill no memory"
)
_WHOLE = "writes into the matrices before the activation as well, which experts share one tensor for"
DENSE: Mapping[str, str] = {"nse": _ACROSS, "alphaedit_plus": _ACROSS, "mend": _WHOLE, "rep_select": _WHOLE}
"""Methods that no mixture of experts is edited by, and why."""


def allowed(model: EditableModel, policy: Policy, earlier: Patch | None, saved: bool = False) -> None:
    """Refuse what an edit cannot do, before anything long begins.

    Args:
        model: unedited.
        policy: with its method.
        earlier: a patch to build on.
        saved: whether the edited model is to be written as a whole.

    Raises:
        ModelError: the earlier patch was made for another model; or the model is quantised, and to be saved.
        PatchError: it is one that nothing can be built on.
        PolicyError: a method that builds on nothing, that trains factors beside weights that are offloaded, or that
            experts cannot be edited by; or a relation's `look_up` for a method that writes no values, or only in one
            place.
    """
    method = policy.method
    if saved and model.quantised:
        raise whole_only(model.name)
    if model.anatomy.experts > 1 and method.name in DENSE:
        raise PolicyError(
            f"method.name: {method.name} {DENSE[method.name]}, and {model.name} is a mixture of experts; choose "
            "null_space_tuning, alphaedit or memit"
        )
    if model.offloaded and isinstance(method, Lora | GradDiff | Npo):
        raise PolicyError(
            f"method.name: {method.name} trains factors beside the weights, and some of these are offloaded; choose "
            "another method, or a --device-map that offloads nothing"
        )
    apart = [name for name, relation in policy.relations.items() if relation.look_up]
    looks = isinstance(method, Automatic | Editor | NullSpaceTuning) and not isinstance(method, AnyEdit)
    if apart and not looks:
        raise PolicyError(
            f"relations.{apart[0]}.look_up: {method.name} does not look up by relation; leave it out"
        )
    if earlier is None:
        return
    if method.name not in SEQUENTIAL:
        raise PolicyError(
            f"method.name: {method.name} cannot build on an earlier patch; use one of {', '.join(SEQUENTIAL)}"
        )
    if earlier.header.get("system"):
        raise PatchError(
            "an edit cannot build on an in-context guard, which changes no weights; start from the model"
        )
    model.accepts(earlier)
