"""General ability by lm-eval, through its Python API, around the model in memory.

Local tasks are YAML files (``tasks``); their data are read here and handed over in memory, so that nothing is written
to a cache. Every other name is looked up among the tasks that come with lm-eval, which fetch their data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from unlearn.audit.observation import TaskScore
from unlearn.audit.quiet import quiet, sentence
from unlearn.audit.tasks import LocalTask, read_task, task_files
from unlearn.errors import AuditError, UnlearnError
from unlearn.files import JsonObject
from unlearn.model.anatomy import context_of
from unlearn.model.editable import EditableModel
from unlearn.model.forward import hooked
from unlearn.model.guard import text_of
from unlearn.model.prompts import has_chat_template
from unlearn.model.rows import finite

if TYPE_CHECKING:
    from torch import nn
    from transformers.modeling_outputs import CausalLMOutput

METRICS = ("acc", "exact_match", "prompt_level_strict_acc", "acc_norm", "f1", "mc2")
"""Metrics in order of preference; a task with none of them gives its first one where higher is better."""


def inline(task: LocalTask) -> JsonObject:
    """Return a local task as lm-eval's inline configuration, with its data.

    Raises:
        AuditError: the data are missing or are not JSON lines.
    """
    from datasets import Dataset

    splits = {split: Dataset.from_list(task.rows(split)) for split in task.data}
    return {**task.config, "custom_dataset": lambda **_: splits}


def run_task(
    model: EditableModel, name: str, limit: int | None = None, local: Mapping[str, Path] | None = None
) -> TaskScore:
    """Evaluate a task on the model as it stands.

    Args:
        name: of a local task, or one that lm-eval knows (a group, too).
        limit: items of the task; None for all.
        local: files of local tasks, by name; the shipped ones by default.

    Raises:
        AuditError: there is no such task, or it cannot be run.
        ModelError: the model's logits are not finite.
    """
    try:
        return _run(model, name, task_files() if local is None else local, limit)
    except UnlearnError:
        raise
    except Exception as problem:  # noqa: BLE001 - third-party code and data: every failure is a failed limit
        raise AuditError(f"lm-eval could not run {name}: {sentence(problem)}") from None


def _run(model: EditableModel, name: str, local: Mapping[str, Path], limit: int | None) -> TaskScore:
    with quiet(), _checked(model), model.stopping():
        import lm_eval
        from lm_eval.tasks import TaskManager

        from unlearn.audit.evaluated import Evaluated

        task: str | JsonObject = name
        chat, called = False, name
        if name in local:
            found = read_task(local[name])
            task, chat = inline(found), found.chat
            # Its results come under the task's own name.
            called = str(found.config["task"])
            manager = TaskManager(include_defaults=False)
        else:
            # Reading lm-eval's own 14,000 names takes seconds, so only where one of them is asked for.
            manager = TaskManager()
            if name not in manager.all_tasks:
                raise AuditError(
                    f"there is no lm-eval task {name!r}, neither in evals/tasks, under audit.task_path nor in lm-eval"
                )
        templated = chat and has_chat_template(model.tokenizer)
        # A rendered chat brings its own start token, or has none.
        starts = False if templated else None
        with _without_git():
            result = lm_eval.simple_evaluate(
                model=Evaluated(model, batch_size(model), longest(model), starts),
                tasks=[task],
                task_manager=manager,
                limit=limit,
                bootstrap_iters=200,
                log_samples=True,
                apply_chat_template=templated,
                # A guarded chat template brings the guard itself; what is no chat gets it as leading text.
                system_instruction=None if templated else text_of(model.tokenizer),
            )
    return read_result(result, called)


@contextmanager
def _without_git() -> Iterator[None]:
    """Within it, lm-eval does not ask git for a commit: outside of a checkout git complains on the terminal."""
    from lm_eval import evaluator

    asked = evaluator.get_git_commit_hash
    evaluator.get_git_commit_hash = lambda: None
    try:
        yield
    finally:
        evaluator.get_git_commit_hash = asked


@contextmanager
def _checked(model: EditableModel) -> Iterator[None]:
    """Within it, a pass whose logits are not finite raises ModelError: lm-eval would take an answer from them."""

    def check(_module: nn.Module, _args: object, out: CausalLMOutput) -> None:
        finite(out.logits[:, -1])

    with model.changing() as note, hooked([model.model.register_forward_hook(check)]):
        note()
        yield


def batch_size(model: EditableModel) -> int:
    """Rows at a time: what keeps the logits of 512-token rows near 2 GB on an accelerator, and 64 at most."""
    return max(1, min(64, (2 << 30) // (512 * model.vocabulary * 4)))


def longest(model: EditableModel) -> int:
    """The model's context, at most 4,096 tokens: lm-eval falls back to 2,048 where it cannot find one."""
    return min(context_of(model.model.config.get_text_config()) or 2048, 4096)


def read_result(result: JsonObject, name: str) -> TaskScore:
    """The score of one task or group in lm-eval's result.

    Raises:
        AuditError: no metric of the task is better when higher, or its value is not a finite number.
    """
    row = result.get("groups", {}).get(name) or result["results"].get(name)
    if row is None:
        raise AuditError(f"lm-eval returned no result for {name}")
    members = [t for t in result.get("samples", {}) if t == name or name in result.get("groups", {})]
    higher: JsonObject = {}
    for task in [name, *members]:
        higher |= {
            k: v for k, v in (result.get("higher_is_better", {}).get(task) or {}).items() if v is not None
        }
    keys = [
        k
        for k in row
        if "," in k and not k.partition(",")[0].endswith("_stderr") and higher.get(k.partition(",")[0])
    ]
    if not keys:
        raise AuditError(f"the task {name} has no metric of which more is better, so no drop can be limited")
    rank = {metric: i for i, metric in enumerate(METRICS)}
    key = min(keys, key=lambda k: rank.get(k.partition(",")[0], len(rank)))
    metric, _, chosen = key.partition(",")
    value = row[key]
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise AuditError(f"lm-eval gave no finite {metric} for {name}")
    stderr = row.get(f"{metric}_stderr,{chosen}")
    items = {}
    for task in members:
        for sample in result["samples"][task]:
            if sample.get("filter", chosen) == chosen and isinstance(sample.get(metric), bool | int | float):
                prefix = "" if task == name else f"{task}/"
                items[f"{prefix}{sample['doc_id']}"] = float(sample[metric])
    error = float(stderr) if isinstance(stderr, int | float) and math.isfinite(stderr) else None
    return TaskScore(metric=metric, value=float(value), stderr=error, items=items)
