"""What a point measures about the facts written so far; importing this imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from torch import Tensor

from unlearn.audit import hidden, measures, recovery, shares
from unlearn.audit.attacks.table import ATTACKS
from unlearn.audit.observation import Attacked, Observation
from unlearn.audit.pipeline import Findings
from unlearn.compare.document import Plane, Shifted, finite
from unlearn.measurements import GROWTH, HIDDEN, SHARES
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Fact, Requests
from unlearn.patch import Patch
from unlearn.policy import AuditSpec
from unlearn.report import Measurement

EDITED = "the largest over the edited layers (of benign questions, where nothing is kept)"
"""At which layers drift.hidden looks in a comparison."""
_NARROW = {row.group for row in SHARES} - shares.ABOUT_OTHERS
"""Groups of probes that ask about facts and siblings."""


def so_far(whole: Requests, done: Sequence[Fact]) -> Requests:
    """The requests with the facts written so far and their siblings."""
    subjects = {fact.subject for fact in done}
    siblings = tuple(fact for fact in whole.siblings if fact.subject in subjects)
    return replace(whole, facts=tuple(done), siblings=siblings)


def about_facts(findings: Findings, asked: Requests) -> Iterator[Measurement]:
    """The measurements of an audit, those about facts and siblings anew for the facts written so far.

    Those that a comparison makes of other layers are left out.

    Args:
        findings: of an audit that asked about all facts.
        asked: the requests so far.
    """
    told = {fact.id for fact in (*asked.facts, *asked.siblings)}
    before, after = _narrowed(findings.before, told), _narrowed(findings.after, told)
    names = {row.name for row in SHARES if row.group in _NARROW}
    audit = asked.policy.audit
    for measurement in findings.measurements:
        family, _, attack = measurement.name.partition(".")
        if measurement.name in names:
            yield measures.share(measurement.name, before, after, audit.limit, facts=asked.facts)
        elif family == "attack" and attack in after.attacks:
            yield recovery.attack(ATTACKS[attack], before, after, None, audit, asked.facts)
        elif measurement.name not in (GROWTH, HIDDEN):
            yield measurement


def _narrowed(seen: Observation, told: set[str]) -> Observation:
    groups = {
        name: tuple(o for o in group if o.fact in told) if name in _NARROW else group
        for name, group in seen.groups.items()
    }
    attacks = {name: _attacked(attacked, told) for name, attacked in seen.attacks.items()}
    return seen.model_copy(update={"groups": groups, "attacks": attacks})


def _attacked(attacked: Attacked, told: set[str]) -> Attacked:
    kept = tuple(o for o in attacked.outcomes if o.fact in told)
    # A note is about all facts that were attacked.
    note = attacked.note if len(kept) == len(attacked.outcomes) else ""
    return attacked.model_copy(update={"outcomes": kept, "note": note})


@dataclass(frozen=True)
class Seen:
    """Hidden states before and after a patch, by layer and group."""

    old: Mapping[int, Mapping[str, Tensor]]
    new: Mapping[int, Mapping[str, Tensor]]

    @classmethod
    def of(cls, model: EditableModel, patch: Patch, asked: Requests, layers: Sequence[int]) -> Seen:
        """Read them, with the prompts that the model is asked in either state."""
        old = hidden.states(model, hidden.prompts(model, asked), layers)
        with model.patched(patch):
            return cls(old, hidden.states(model, hidden.prompts(model, asked), layers))

    def moved(self, audit: AuditSpec) -> Measurement:
        """drift.hidden of all edited layers, where an audit looks at two."""
        found = hidden.shift_of_states(self.old, self.new, audit.limit, audit.seed)
        return found.model_copy(update={"definition": hidden.defined(EDITED)})

    def shifts(self) -> tuple[Shifted, ...]:
        """How far each group moved at each layer, where that is a number."""
        return tuple(
            Shifted(layer=layer, group=group, prompts=s.prompts, mean=s.mean, each=s.each)
            for layer in self.old
            for group in self.old[layer]
            if (s := hidden.shift(self.old[layer][group], self.new[layer][group])) is not None
            and finite(s.mean) is not None
            and finite(s.each) is not None
        )

    def plane(self, layer: int) -> Plane | None:
        """The states of a layer in the plane."""
        drawn = hidden.plane(layer, self.old[layer], self.new[layer]) if self.old else None
        return None if drawn is None else Plane(**asdict(drawn))
