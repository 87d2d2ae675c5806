"""What several commands share: looking at the audit first, loading a model, and keeping libraries quiet and local."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unlearn.audit.suite import ATTACKS, Suite, load_suite
from unlearn.commands.said import LogLines, warn
from unlearn.errors import AuditError, PolicyError, UnlearnError
from unlearn.files import exists
from unlearn.policy import EMBEDDED, PACKAGE, Policy
from unlearn.policy.checks import suggestion
from unlearn.runs.folder import PRIVATE
from unlearn.shipped import shipped
from unlearn.store import Store, cache_folder

if TYPE_CHECKING:
    from unlearn.model.editable import EditableModel
    from unlearn.patch import Patch

NAMES = (EMBEDDED, "auto", "none")
"""What may stand in a policy for a model, and is not read from a folder of that name."""

log = logging.getLogger("unlearn")


def known_audit(policy: Policy, whole: bool = True) -> None:
    """Refuse an audit that cannot be made as it stands there, before any work is done.

    Args:
        policy: for its `audit`: the suite, the names of limits, and files of questions and text.
        whole: look into the files, too; takes torch.

    Raises:
        PolicyError: the suite or a file cannot be read, or one of them names what is not measured.
    """
    audit = policy.audit
    suite = known_suite(audit.suite)
    attacks = [f"attack.{name}" for name in ATTACKS]
    for name in audit.limits:
        if name.startswith("attack.") and name not in attacks:
            raise PolicyError(f"audit.limits.{name}: no measurement of this name{suggestion(name, attacks)}")
    if not whole:
        return
    from unlearn.audit.drift import read_texts
    from unlearn.audit.lookalike import lookalike_lines
    from unlearn.audit.probes import benign_lines

    # Drift is measured on replies to the benign questions too.
    readers: tuple[tuple[tuple[str, ...], str, Callable[[str], object]], ...] = (
        (("overrefusal.benign", "drift"), "benign", benign_lines),
        (("overrefusal.lookalike",), "lookalike", lookalike_lines),
        (("drift",), "text", read_texts),
    )
    for measurements, key, read in readers:
        if any(map(suite.makes, measurements)) and getattr(audit, key) != "auto":
            with _as_problem_of(f"audit.{key}"):
                read(getattr(audit, key))


def known_suite(name: str) -> Suite:
    """Return a suite, or refuse one that is none.

    Args:
        name: `audit.suite`.

    Raises:
        PolicyError: it cannot be read, or names what is not measured.
    """
    with _as_problem_of("audit.suite"):
        return load_suite(name)


@contextmanager
def _as_problem_of(key: str) -> Iterator[None]:
    try:
        yield
    except AuditError as problem:
        raise PolicyError(f"{key}: {problem}") from None


def settle(policy: Policy, candidate: str | None = None) -> None:
    """Silence the libraries, and keep them off the network where nothing that is named needs it.

    To be called before transformers, datasets or lm-eval are imported: they read the environment once.

    Args:
        policy: with the names of models, data and tasks.
        candidate: another model that will be loaded.
    """
    warnings.filterwarnings("ignore")
    logging.raiseExceptions = False  # a full disk under log.txt must not print tracebacks
    for name in (
        "lm_eval",
        "lm-eval",
        "datasets",
        "transformers",
        "huggingface_hub",
        "httpx",
        "evaluate",
        "absl",
        "matplotlib",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    if is_local(policy) and (candidate is None or exists(candidate)):
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
            os.environ[name] = "1"
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")


def is_local(policy: Policy) -> bool:
    """Say whether everything that a policy names lies on this machine."""
    tasks = shipped("evals") / "tasks"
    known = {path.stem for path in tasks.rglob("*.yaml")}
    scorer = policy.audit.toxicity
    return (
        (policy.model == EMBEDDED or policy.model.startswith(PACKAGE) or exists(policy.model))
        and (policy.statistics.corpus in ("auto", EMBEDDED) or exists(policy.statistics.corpus))
        and (policy.model == EMBEDDED or policy.statistics.corpus != "auto")
        and (policy.audit.control in ("auto", "none") or exists(policy.audit.control))
        and all(task in known for task in policy.audit.tasks)
        and ((scorer == "auto" and policy.model == EMBEDDED) or exists(scorer))
    )


def read_by(policy: Policy, file: Path, *others: Path | str | None) -> tuple[Path | str | None, ...]:
    """What a command reads, so that it writes nothing there: the policy's file, what that names, and others.

    Args:
        policy: with the names of models and files; hub ids and such may be among them.
        file: where it was read from.
        others: what else is read.
    """
    audit = policy.audit
    files = (policy.statistics.corpus, audit.suite, audit.text, audit.benign, audit.lookalike)
    return (
        file,
        *(name for name in files if os.path.isfile(name)),
        *(name for name in (policy.model, audit.control, audit.toxicity) if name not in NAMES),
        *others,
    )


def load_model(
    name: str, device: str, dtype: str, trust_remote_code: bool, quiet: bool, patch: Patch | None = None
) -> EditableModel:
    """Load a model, with a line of progress; one that a patch is to go on in the dtype in which that was made."""
    from transformers.utils import logging as chatter

    from unlearn.model.editable import EditableModel
    from unlearn.progress import progress_for

    # The environment does the same, unless transformers was imported before.
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    with progress_for(quiet).step(f"Loading {name}"):
        made_in = None if patch is None else patch.storage_dtype
        return EditableModel.load(name, device, dtype, trust_remote_code, made_in)


def cache_for(no_cache: bool) -> Store | None:
    """Where statistics and measurements are kept for later runs; None, and a warning, if there is no such place.

    One that may only be read is used as it is.
    """
    if no_cache:
        return None
    folder = cache_folder()
    try:
        return Store.at(folder, doubt)
    except UnlearnError as problem:
        warn(
            f"the cache {folder} cannot be used ({problem}), so nothing is kept for later runs; set "
            "UNLEARN_CACHE to another folder"
        )
        return None


def doubt(text: str) -> None:
    """Say on stderr, and in the log if there is one, what is wrong with something that was kept."""
    log.info("%s", text)
    warn(text)


def command_line() -> tuple[str, ...]:
    """The words that this program was called with, without its own name."""
    context = click.get_current_context(silent=True)
    return tuple(context.obj or ()) if context else ()


def device_in_words(model: EditableModel) -> str:
    """Return "cpu", or the name of the graphics processor that the model is on."""
    if model.device.type == "cuda":
        import torch

        return str(torch.cuda.get_device_name(model.device))
    return str(model.device)


def base_of(model: EditableModel) -> dict[str, Any]:
    """Describe the unedited model for a manifest."""
    from unlearn.model.gguf import origin_of

    revision = getattr(model.model.config, "_commit_hash", None)
    origin = origin_of(model.model.config.to_dict())
    return {
        "name": model.name,
        "revision": revision,
        "family": str(getattr(model.model.config, "model_type", "")),
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "identity": model.identity(),
        "weights": model.fingerprint(),
        **({} if origin is None else {"origin": asdict(origin)}),
    }


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Write what `unlearn` logs to a file for as long as the block lasts; nobody else can read it."""
    path.touch(PRIVATE)
    with suppress(OSError):  # a file system without modes
        path.chmod(PRIVATE)  # it may be there from an earlier call
    handler = logging.FileHandler(path, encoding="utf-8", delay=False)
    handler.setFormatter(LogLines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level, log.level = log.level, logging.INFO
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
        log.setLevel(level)


@contextmanager
def warned(quiet: bool) -> Iterator[None]:
    """Tell the warnings of `unlearn` on stderr for as long as the block lasts: for what leaves no log behind."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(LogLines("unlearn: warning: %(message)s"))
    if not quiet:
        log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def digest_of(parts: Mapping[str, Any]) -> str:
    """Return one sha256 for the values that a cached result depends on."""
    return hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()


def same_policy(recorded: Mapping[str, Any], policy_file: Path, digest: str) -> None:
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
