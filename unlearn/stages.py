"""What an edit of several batches noted of itself as it grew: plain numbers in the patch's header, and their curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field, TypeAdapter, ValidationError

from unlearn.errors import PatchError
from unlearn.files import Json, JsonObject
from unlearn.measurements import GROWTH, HIDDEN
from unlearn.report.drawings import OLDEST, Curve
from unlearn.report.measurement import Document

HEADER = "stages"
"""Where they stand in a patch's header."""


class Stage(Document):
    """An edit after some of its batches; a number is None where it could not be had."""

    facts: int = Field(ge=0)
    """Written by then, those of earlier patches included."""
    norm_growth: float | None
    """Largest ``|W + D| / |W| - 1`` (Frobenius) over the edited matrices."""
    hidden_drift: float | None
    """Shift of the mean hidden state of the edit's own kept prompts, in units of their spread before it: the largest
    at the deepest edited block and the last one."""
    oldest: float | None = None
    """Share of the first batch's own prompts to which greedy decoding replies with the whole target."""


_STAGES: TypeAdapter[tuple[Stage, ...]] = TypeAdapter(tuple[Stage, ...])

CURVES = {
    GROWTH: ("norm_growth", "largest |W + D| / |W| - 1 of an edited matrix"),
    HIDDEN: ("hidden_drift", "shift of the mean state of the edit's kept prompts, relative to their spread"),
    OLDEST: ("oldest", "share of the first batch's prompts that still get their target"),
}
"""By name of a curve, the number of a stage that it shows, and what that is."""


def noted(header: Mapping[str, Json]) -> tuple[Stage, ...]:
    """The stages in a patch's header; none where it has none: a single batch, or a patch of an earlier version.

    Raises:
        PatchError: what stands there are no stages.
    """
    try:
        return _STAGES.validate_python(header.get(HEADER, ()))
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, (HEADER, *first["loc"])))
        raise PatchError(
            f"the patch's header is not one that this program writes: {where}: {first['msg']}; make the edit anew"
        ) from None


def note(stages: Sequence[Stage]) -> JsonObject:
    """What a patch's header says of them; nothing where there are none."""
    return {HEADER: [stage.model_dump() for stage in stages]} if stages else {}


def curves(stages: Sequence[Stage]) -> list[Curve]:
    """Each number over the number of edits, where it was had at two stages at least."""
    found = []
    for name, (number, label) in CURVES.items():
        at = [(stage.facts, y) for stage in stages if (y := stage.model_dump()[number]) is not None]
        if len(at) > 1:
            x, y = zip(*at, strict=True)
            found.append(Curve(name=name, x_label="number of edits", y_label=label, x=x, y=y))
    return found
