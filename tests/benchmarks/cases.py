"""A tiny facts file in the shared format, with invented facts, and a corpus in which pico models find their keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests import pico

SUBJECTS = ("Zorvex", "Velnar", "Quandel", "Stone", "Amber", "Naive Tea", "Wet Line", "Green Room")


def fact(number: int, **changes: Any) -> dict[str, Any]:
    subject = SUBJECTS[number]
    other = (number + 1) % 3
    return {
        "case_id": number,
        "relation": 7,
        "subject": subject,
        "prompt": "{} is made from",
        "target_true": "stone",
        "target_new": "amber",
        "seen_templates": ["Zorro makes {} out of"],
        "paraphrase_prompts": [f"People make {subject} from"],
        "neighborhood": [
            {"prompt": f"{SUBJECTS[other]} is made from", "target": "stone", "case_id": other},
            {"prompt": "The colour is", "target": "amber", "case_id": 99},
        ],
        **changes,
    }


def facts_file(folder: Path, count: int = len(SUBJECTS)) -> Path:
    path = folder / "facts.jsonl"
    path.write_text("".join(json.dumps(fact(n)) + "\n" for n in range(count)), encoding="utf-8")
    return path


def corpus_file(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    (folder / "text_heldout.txt").write_text("\n\n".join(pico.LINES), encoding="utf-8")
    return path
