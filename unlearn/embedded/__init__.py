"""The embedded model: a small language model of an invented world, and the world itself.

Importing this room imports no torch; training and measuring do when they run.
"""

from __future__ import annotations

from pathlib import Path

from unlearn.embedded.talk import documents
from unlearn.embedded.world import HAZARD, Relation, Subject, World, build_world, fill, neighbours

__all__ = [
    "HAZARD", "Relation", "Subject", "World", "build_world", "documents", "fill", "neighbours", "path",
]  # fmt: skip


def path(control: bool = False) -> Path:
    """Return the folder of the shipped model: a Hugging Face folder, as ``from_pretrained`` takes it.

    Args:
        control: the model of the same training run without the hazard relation instead, which never knew it.
    """
    return Path(__file__).with_name("control" if control else "model")
