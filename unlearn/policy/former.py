"""The words of earlier versions: what a setting or a measurement is called now, and what is no setting any more."""

from __future__ import annotations

from collections.abc import Mapping

RENAMED: Mapping[str, str] = {
    "more_forms": "prompt_variants",
    "hold": "target_probability",
    "remnant": "old_answer_ceiling",
    "suppress": "unlikelihood",
    "silence": "unlikelihood_margin",
    "witnesses": "hard_negatives",
    "witnessed": "hard_negative_weight",
    "attack.prefix": "attack.prefill",
}
"""By the former word. A policy or a suite that has it is an error with the new one; an earlier run's report is read."""

_PUBLISHED = "no setting any more: `published: true` takes the numbers of the paper"
GONE: Mapping[str, str] = {
    "absolute": _PUBLISHED,
    "threshold": _PUBLISHED,
    "descent": "no setting any more: `method: null_space_tuning` trains the update, `method: alphaedit` solves for it, "
    "and `method: auto`, the default, chooses",
}
"""What to write in the place of a method's settings that there were."""


def present(word: str) -> str:
    """What is called so, or was, by the word of today."""
    return RENAMED.get(word, word)
