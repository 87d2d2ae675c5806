"""Tasks of one's own for lm-eval: plain YAML files with their data beside them, read here and never run as code.

A policy names a file by its path, or by its task's name where that lies in ``evals/tasks`` or under
``audit.task_path``. Every other name is one of lm-eval's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from unlearn import files
from unlearn.errors import AuditError
from unlearn.files import JsonObject
from unlearn.policy import AuditSpec
from unlearn.policy.values import is_task_file
from unlearn.shipped import shipped

WHAT = "the task file"


@dataclass(frozen=True)
class LocalTask:
    """A task that is given to lm-eval in memory."""

    config: JsonObject
    """As lm-eval reads it, without what names the data."""
    data: Mapping[str, Path]
    """A file of JSON lines by split."""

    @property
    def chat(self) -> bool:
        """Whether it is asked in the chat template."""
        return bool((self.config.get("metadata") or {}).get("chat", False))

    def rows(self, split: str) -> list[JsonObject]:
        """Return the items of a split.

        Raises:
            AuditError: they are missing, empty, or not JSON lines.
        """
        path, what = self.data[split], f"the data of task {self.config['task']} at"
        lines = enumerate(files.read_lines(path, what, error=AuditError), 1)
        rows = []
        for number, line in lines:
            if line.strip():
                row = files.parse_json(line, f"{what} {path}:{number}", AuditError)
                if not isinstance(row, dict):
                    raise AuditError(f"{what} {path}:{number} are no JSON object")
                rows.append(row)
        if not rows:
            raise AuditError(f"{what} {path} are empty")
        return rows


def task_files(folder: Path | None = None) -> dict[str, Path]:
    """Return the YAML file of every task in a folder, by the task's name; one that cannot be read, by the file's.

    Args:
        folder: other than the shipped one.
    """
    found: dict[str, Path] = {}
    for path in sorted((folder or shipped("evals") / "tasks").glob("**/*.yaml")):
        try:
            config = files.read_yaml(path, WHAT, error=AuditError)
        except AuditError:
            found.setdefault(path.stem, path)
            continue
        if isinstance(config, dict) and isinstance(config.get("task"), str):
            found[config["task"]] = path
    return found


def local_files(audit: AuditSpec) -> dict[str, Path]:
    """Return the files of the tasks that an audit asks for, by their names (``AuditSpec.task_names``)."""
    known = task_files()
    if audit.task_path != "auto":
        known |= task_files(Path(audit.task_path))
    named = {name: known[name] for name in audit.task_names if name in known}
    return named | {Path(task).stem: Path(task) for task in audit.tasks if is_task_file(task)}


def read_task(path: Path) -> LocalTask:
    """Read a task's file; its data are looked for beside it.

    Raises:
        AuditError: it is no plain YAML, no task, or names no data of its own.
    """
    config = files.read_yaml(path, WHAT, error=AuditError)
    if not isinstance(config, dict) or not isinstance(config.get("task"), str):
        raise AuditError(f"{WHAT} {path} has no `task` with a name: it is none of lm-eval's tasks")
    if "include" in config:
        raise AuditError(f"{WHAT} {path} includes another file, which is not read: write the task out")
    given = config.pop("dataset_kwargs", None)
    data = given.get("data_files") if isinstance(given, dict) else None
    if not isinstance(data, dict) or not data or not all(isinstance(name, str) for name in data.values()):
        raise AuditError(
            f"{WHAT} {path} names no data under dataset_kwargs.data_files: one .jsonl file for each split, beside it"
        )
    for key in ("dataset_path", "dataset_name"):
        config.pop(key, None)
    return LocalTask(config, {str(split): path.parent / name for split, name in data.items()})


def read_by_tasks(audit: AuditSpec) -> Iterator[Path]:
    """Every file that the tasks of an audit are read from."""
    for path in local_files(audit).values():
        yield path
        with suppress(AuditError):  # which fails the task's own limit
            yield from read_task(path).data.values()


def known_tasks(audit: AuditSpec) -> None:
    """Look into everything that the tasks of an audit are read from.

    Raises:
        AuditError: a file or its data are missing or broken; naming the file, and the line where there is one.
    """
    if audit.task_path != "auto" and not Path(audit.task_path).is_dir():
        raise AuditError(f"`task_path` {audit.task_path} is no folder")
    for path in local_files(audit).values():
        task = read_task(path)
        for split in task.data:
            task.rows(split)
