"""Measurements of the unedited model, kept between runs: they depend on the model and the policy, not on the edit."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        keep(path, made.model_dump_json())
    return made


def _key(model: EditableModel, requests: Requests) -> str:
    return hashlib.sha256(json.dumps(depends(model, requests), sort_keys=True).encode()).hexdigest()


def depends(model: EditableModel, requests: Requests) -> dict[str, Any]:
    """Everything that the outcome of an observation depends on, down to the code and the data that measure it."""
    policy = requests.policy
    return {
        "model": model.identity(),
        "tokenizer": model.tokenizer.backend_tokenizer.to_str() + str(model.tokenizer.chat_template),
        "device": f"{model.device.type} {model.dtype}",
        "audit": policy.audit.model_dump(mode="json"),
        "relations": {name: relation.model_dump(mode="json") for name, relation in policy.relations.items()},
        "system": policy.system,
        "refusal": policy.targets(),
        "requests": repr(
            (requests.facts, requests.siblings, requests.neighbours, requests.held_out_neighbours)
        ),
        "files": [stamp(name) for name in (policy.audit.text, policy.audit.benign, policy.audit.toxicity)],
        "evals": manifest.sha256_of_folder(shipped("evals")),
        "code": _code(),
        "versions": manifest.versions(),
    }


def _code() -> str:
    """Hash the program, without what only words and draws its results."""
    package = Path(__file__).resolve().parent.parent
    apart = {
        package / name for name in ("cli.py", "charts.py", "comparison.py", "report_html.py", "progress.py")
    }
    files = [
        path for path in sorted(package.rglob("*.py")) if path not in apart and path.parent.name != "commands"
    ]
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(package).as_posix()}\0{manifest.sha256_of_file(path)}\n".encode())
    return digest.hexdigest()


def stamp(name: str) -> str:
    """Hash of a file or a folder; nothing for a name that is neither."""
    path = Path(name)
    if path.is_file():
        return manifest.sha256_of_file(path)
    return manifest.sha256_of_folder(path) if path.is_dir() else ""


def keep(path: Path, text: str) -> None:
    """Write a file whole or not at all; a disk that refuses it costs time later on, and is no error."""
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
