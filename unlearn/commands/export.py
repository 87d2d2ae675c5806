"""`unlearn export`: the edited model as an ordinary folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import click

from unlearn.commands.options import Place, force, model_options, quiet, tokenizer_elsewhere
from unlearn.commands.report import report_at
from unlearn.commands.said import say, written
from unlearn.errors import UnlearnError
from unlearn.loaded import checkpoint_of, load_model
from unlearn.order import Placement
from unlearn.progress import progress_for
from unlearn.runs import manifest
from unlearn.runs.folder import EXPORTED, outside_runs, patch_of, whole_folder
from unlearn.runs.sealed import REPORT, whole


@click.command(short_help="Write the edited model as an ordinary folder.")
@click.argument("run", type=Place(exists=True))
@click.argument("folder", type=Place())
@click.option(
    "--model",
    help="The base model, where it now lies elsewhere. A patch refuses what it was not made for.",
)
@click.option(
    "--adapter", is_flag=True, help="Of a quantised model: write a LoRA adapter in the format of peft."
)
@tokenizer_elsewhere
@model_options
@force
@quiet
def export(
    run: Path,
    folder: Path,
    model: str | None,
    adapter: bool,
    tokenizer: str | None,
    placement: Placement,
    force: bool,
    quiet: bool,
) -> int:
    """Write the edited model of a RUN directory (or patch file) to FOLDER.

    The folder loads with transformers' AutoModelForCausalLM.from_pretrained, needs no code of unlearn, and has the
    dtype of the original checkpoint, or the narrower one of the run. Weights are read and written file by file, so that
    the largest file is all that has to fit into memory. A report that failed is noted. A changed run is an error.

    Edited weights of a quantised model cannot be written as they were measured. With --adapter FOLDER gets a LoRA
    adapter instead, which peft puts on the same quantised model.

    \b
    Examples:
        unlearn export runs/first edited-model
        unlearn export runs/first adapter --adapter
    """
    from unlearn.model.exported import export as write
    from unlearn.model.exported_adapter import export_adapter
    from unlearn.patch import Patch

    whole(run)
    patch = Patch.load(patch_of(run))
    name = model or base_name(run, patch.header)
    own = model is None or Path(model).absolute() == Path(base_name(run, patch.header)).absolute()
    apart = tokenizer or base_tokenizer(run, patch.header)
    judged = report_at(run / REPORT) if (run / REPORT).is_file() else None
    outside_runs(folder, run)
    with whole_folder(folder, force, (run, name)) as partial:
        if adapter:
            base = load_model(name, placement, patch, progress_for(quiet), apart)
            stop, stored = export_adapter(base, patch, partial).text, f"float32, beside {base.quantised}"
        else:
            found = checkpoint_of(name, placement, patch, apart)
            stop = write(found, patch, partial, progress_for(quiet)).text
            stored = str(found.kept).removeprefix("torch.")
        if judged is not None and own:
            shutil.copyfile(run / REPORT, partial / "unlearn_report.json")
        made_of = {"format": "unlearn-export-1", "model": name, "patch": str(run)}
        _describe(partial, made_of | ({"stop": stop} if stop else {}))
    written(folder)
    say(
        f"{folder}: {'an adapter of ' * adapter}{name} with a patch of {len(patch.factors)} weights, in {stored}"
    )
    if stop:
        _note(f"a reply ends with {stop!r}, which is no token; tell the server to stop there")
    if judged is not None and not own:
        _note(
            f"the report is not copied: `unlearn verify {run} --model {name}` shows whether it is about this model"
        )
    if judged is not None and not judged.passed:
        _note("the audit of this run failed its limits")
    return 0


def _describe(folder: Path, made_of: Mapping[str, str]) -> None:
    (folder / EXPORTED).write_text(json.dumps(made_of, indent=2) + "\n", encoding="utf-8")


def _note(that: str) -> None:
    say(f"unlearn: note that {that}", err=True)


def base_name(run: Path, header: Mapping[str, object]) -> str:
    """Return the name of the model that a run or a patch was made for.

    Raises:
        UnlearnError: if neither says so.
    """
    name = manifest.read(run)["base"]["name"] if run.is_dir() else header.get("model")
    if not isinstance(name, str):
        raise UnlearnError(f"{run} does not say which model it belongs to; name it with --model")
    return name


def base_tokenizer(run: Path, header: Mapping[str, object]) -> str:
    """Return where the tokenizer of that model came from: `auto` where it was the model's own."""
    told = manifest.read(run)["base"] if run.is_dir() else header
    return str(told.get("tokenizer", "auto"))
