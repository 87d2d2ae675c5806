"""All attacks, by the name under which they are measured (`attack.<name>`)."""

from __future__ import annotations

from collections.abc import Mapping

from unlearn.audit.attacks.scene import Attack

ATTACKS: Mapping[str, Attack] = {}
