"""Measurements of the unedited model, kept between runs: they depend on the model and the policy, not on the edit."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from unlearn import manifest
from unlearn.shipped import shipped

if TYPE_CHECKING:
    from unlearn.audit.observation import Observation
    from unlearn.model.editable import EditableModel
    from unlearn.model.requests import Requests

log = logging.getLogger("unlearn")


def observed(
    model: EditableModel, requests: Requests, cache: Path | None, observe: Callable[[], Observation]
) -> Observation:
    """Return the observation of the unedited model from the cache, or make it and keep it there.

    An observation with failed measurements is not kept: the next run may have what this one lacked.

    Args:
        model: the unedited model.
        requests: what it is asked.
        cache: a folder, or None for no cache.
        observe: makes the observation.
    """
    from unlearn.audit.observation import Observation

    if cache is None:
        return observe()
    path = cache / "observations" / f"{_key(model, requests)}.json"
    try:
        found = Observation.model_validate_json(path.read_bytes())
        log.info("the unedited model was measured before: %s", path)
        return found
    except (OSError, ValidationError):
        made = observe()
    if not made.failed:
        _keep(path, made.model_dump_json())
    return made


def _key(model: EditableModel, requests: Requests) -> str:
    """Hash everything that the outcome depends on, down to the code and the data that measure it."""
    policy = requests.policy
    depends = {
        "model": model.identity(),
        "tokenizer": model.tokenizer.backend_tokenizer.to_str() + str(model.tokenizer.chat_template),
        "device": f"{model.device.type} {model.dtype}",
        "audit": policy.audit.model_dump(mode="json"),
        "relations": {name: relation.model_dump(mode="json") for name, relation in policy.relations.items()},
        "system": policy.system,
        "refusal": policy.refusal,
        "requests": repr(
            (requests.facts, requests.siblings, requests.neighbours, requests.held_out_neighbours)
        ),
        "files": [_stamp(name) for name in (policy.audit.text, policy.audit.benign, policy.audit.toxicity)],
        "evals": manifest.sha256_of_folder(shipped("evals")),
        "code": manifest.sha256_of_folder(Path(__file__).resolve().parent.parent, ("*.py",)),
        "versions": manifest.versions(),
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def _stamp(name: str) -> str:
    path = Path(name)
    if path.is_file():
        return manifest.sha256_of_file(path)
    return manifest.sha256_of_folder(path) if path.is_dir() else ""


def _keep(path: Path, text: str) -> None:
    # A cache that cannot be written costs time, not the run.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    except OSError:
        return
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
