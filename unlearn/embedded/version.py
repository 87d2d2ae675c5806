"""Which world it is: whatever changes a fact or a phrase gives another hash, and the model has to be trained anew."""

from __future__ import annotations

import hashlib
from functools import cache
from itertools import islice

from unlearn.embedded import talk
from unlearn.embedded.world import build_world


@cache
def version() -> str:
    """Return the version of the generator: a sha256 over every fact, phrasing and a sample of its documents."""
    world = build_world()
    parts = [repr(world.relations), repr(world.everyday), repr(sorted(world.answers.items()))]
    for brief in (False, True):
        for split in ("train", "held_out"):
            parts += islice(talk.documents(split, 0, brief=brief), 4000)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
