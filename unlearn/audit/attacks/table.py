"""All attacks, by the name under which they are measured (`attack.<name>`)."""

from __future__ import annotations

from collections.abc import Mapping

from unlearn.audit.attacks.direction import DIRECTION
from unlearn.audit.attacks.lens import LENS
from unlearn.audit.attacks.patch_leak import PATCH
from unlearn.audit.attacks.probe import PROBE
from unlearn.audit.attacks.prompting import PROMPTING
from unlearn.audit.attacks.relearn import RELEARNING
from unlearn.audit.attacks.rounding import ROUNDING
from unlearn.audit.attacks.scene import Attack
from unlearn.audit.attacks.singular import SINGULAR
from unlearn.audit.attacks.suffix import SUFFIX

_ALL = (
    *PROMPTING,
    *ROUNDING,
    *SINGULAR,
    *PATCH,
    *LENS,
    *PROBE,
    *DIRECTION,
    *SUFFIX,
    *RELEARNING,
)
ATTACKS: Mapping[str, Attack] = {attack.name: attack for attack in _ALL}
