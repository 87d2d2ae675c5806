"""What several commands share: keeping libraries quiet and local, and what a run is carried out with."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import click

from unlearn.audit.tasks import local_files
from unlearn.commands.said import say, warn
from unlearn.errors import PolicyError
from unlearn.files import exists
from unlearn.order import Means, Placement
from unlearn.policy import EMBEDDED, OWN, PACKAGE, Policy
from unlearn.policy.file import load_policy
from unlearn.progress import progress_for
from unlearn.runs.manifest import Source
from unlearn.store import Store, usual_cache

log = logging.getLogger("unlearn")


def settle(policy: Policy, candidate: str | None = None) -> None:
    """Silence the libraries, and keep them off the network where nothing that is named needs it.

    To be called before transformers, datasets or lm-eval are imported: they read the environment once.

    Args:
        candidate: another model that will be loaded.
    """
    warnings.filterwarnings("ignore")
    logging.raiseExceptions = False  # a full disk under log.txt must not print tracebacks
    for name in "lm_eval lm-eval datasets transformers huggingface_hub httpx evaluate absl".split():
        logging.getLogger(name).setLevel(logging.ERROR)
    if is_local(policy) and (candidate is None or exists(candidate)):
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
            os.environ[name] = "1"
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")


def is_local(policy: Policy) -> bool:
    """Say whether everything that a policy names lies on this machine."""
    known = local_files(policy.audit)
    scorer = policy.audit.toxicity
    return (
        (policy.model == EMBEDDED or policy.model.startswith(PACKAGE) or exists(policy.model))
        and (policy.tokenizer == "auto" or exists(policy.tokenizer))
        and (policy.statistics.corpus in ("auto", EMBEDDED, OWN) or exists(policy.statistics.corpus))
        and (policy.audit.control in ("auto", "none") or exists(policy.audit.control))
        and all(task in known for task in policy.audit.task_names)
        and ((scorer == "auto" and policy.model == EMBEDDED) or exists(scorer))
    )


def read_policy(file: Path, given: Mapping[str, str], candidate: str | None = None) -> tuple[Policy, Source]:
    """Read a policy with what the command line overrides, and settle the libraries for it and for the candidate."""
    policy, source = load_policy(file, given), Source.of(file)
    settle(policy, candidate)
    return policy, source


def run_folder(policy: Policy, made: str) -> Path:
    """Return runs/NAME-MADE-TIME; the time keeps one run from meeting another."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", policy.name)
    return Path("runs") / f"{name}-{made}-{time.strftime('%Y%m%d-%H%M%S')}"


def means_of(placement: Placement, no_cache: bool, quiet: bool) -> Means:
    """What a command carries a run out with."""
    return Means(placement, cache_for(no_cache), progress_for(quiet), _ignored if quiet else _announced)


def _announced(sentence: str) -> None:
    """Tell a person who watches."""
    if sys.stderr.isatty():
        say(sentence, err=True)


def _ignored(sentence: str) -> None:
    """Tell nobody."""


def cache_for(no_cache: bool) -> Store | None:
    """Where statistics and measurements are kept for later runs; None, and a warning, if there is no such place."""
    return None if no_cache else usual_cache(doubt)


def doubt(text: str) -> None:
    """Say on stderr, and in the log if there is one, what is wrong with something that was kept."""
    log.info("%s", text)
    warn(text)


def command_line() -> tuple[str, ...]:
    """The words that this program was called with, without its own name."""
    context = click.get_current_context(silent=True)
    return tuple(context.obj or ()) if context else ()


def same_policy(recorded: Mapping[str, Mapping[str, str]], policy_file: Path, digest: str) -> None:
    """Refuse to judge a run by another policy than the one that it was made with.

    Raises:
        PolicyError: if the hashes differ.
    """
    made_with = recorded["policy"]["sha256"]
    if made_with != digest:
        raise PolicyError(
            f"{policy_file} is not the policy that this run was made with (its sha256 differs); "
            "audit the run's patch.safetensors to judge it by another policy"
        )
