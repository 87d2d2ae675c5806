"""The command line of both benchmarks."""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.options import chosen, guarded, numbers, settings_of
from benchmarks.records import Loaded
from benchmarks.rows import Rows
from benchmarks.runner import Judge, Plan, run
from benchmarks.tables import plain
from unlearn.audit import drift
from unlearn.model.editable import EditableModel
from unlearn.policy import StatisticsSpec
from unlearn.policy.method import METHOD_NAMES
from unlearn.progress import progress_for


def parser(prog: str, text: str) -> argparse.ArgumentParser:
    """The options that both benchmarks share."""
    options = argparse.ArgumentParser(prog=prog, description=text)
    options.add_argument("--model", required=True, help="a local model folder, a hub id, or `embedded`")
    options.add_argument("--facts", required=True, type=Path, help="the benchmark's file")
    options.add_argument(
        "--methods", default="alphaedit", help=f"names, with commas; known: {', '.join(METHOD_NAMES)}"
    )
    options.add_argument("--edits", default="10,50,100,200", help="where to measure, ascending")
    options.add_argument("--batch", type=int, default=10, help="facts per batch (rome always takes one)")
    options.add_argument("--seeds", default="0,1,2", help="each picks its own facts")
    options.add_argument(
        "--corpus", default="auto", help="text behind the key statistics: a .jsonl or .txt file, a name"
    )
    options.add_argument("--corpus-tokens", type=int, default=200_000, help="how many of its tokens to read")
    options.add_argument(
        "--text", type=Path, help="held-out text for the KL; default: CORPUS_heldout beside the corpus"
    )
    options.add_argument("--kl-tokens", type=int, default=4096)
    options.add_argument(
        "--kept", type=int, default=1000, help="most other subjects that the edit may protect; 0 for none"
    )
    options.add_argument(
        "--phrasings", action="store_true", help="show the edit other phrasings too (not standard)"
    )
    options.add_argument(
        "--chat", action="store_true", help="ask questions in the chat template (default: plain text)"
    )
    options.add_argument(
        "--fluency", type=int, default=50, help="facts whose continuations are generated; 0 for none"
    )
    options.add_argument(
        "--set", action="append", default=[], metavar="method.KEY=VALUE", help="or NAME.KEY=VALUE"
    )
    options.add_argument("--label", help="what to call these settings in the table")
    options.add_argument(
        "--json", type=Path, metavar="OUT", help="rows, added as they come; rows there are not repeated"
    )
    options.add_argument(
        "--checkpoints", type=Path, help="folder for patches at each mark, to go on after an interruption"
    )
    options.add_argument("--device", default="auto")
    options.add_argument("--threads", type=int, help="CPU threads")
    return options


def main(
    prog: str, text: str, load: Callable[[Path], Loaded], judge: Judge, argv: Sequence[str] | None = None
) -> int:
    """Run a benchmark from the command line; returns the exit code."""
    args = parser(prog, text).parse_args(argv)
    return guarded(lambda: _main(prog, load, judge, args))


def _main(prog: str, load: Callable[[Path], Loaded], judge: Judge, args: argparse.Namespace) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    names = chosen("methods", args.methods, METHOD_NAMES)
    marks, seeds = numbers("edits", args.edits, 1), numbers("seeds", args.seeds, 0)
    methods = [settings_of(name, args.set) for name in names]
    loaded = load(args.facts)
    for note in loaded.notes:
        print(f"note: {note}")
    rows = Rows(args.json)
    held_out = args.text or _beside(args.corpus)
    if held_out is None:
        print("note: no held-out text (--text): kl is not measured")
    model = EditableModel.load(args.model, args.device)
    if not args.chat:
        model.tokenizer = copy.deepcopy(model.tokenizer)  # it may be shared
        model.tokenizer.chat_template = None
    mode = (
        "the edit prompt and the record's other phrasings"
        if args.phrasings
        else "the edit prompt alone (standard)"
    )
    print(
        f"note: the edit sees {mode}; up to {args.kept} kept subjects of the same relations, none of them evaluated"
    )
    plan = Plan(
        benchmark=prog,
        judge=judge,
        records=loaded.records,
        marks=marks,
        batch=args.batch,
        kept=args.kept,
        phrasings=args.phrasings,
        statistics=StatisticsSpec(corpus=args.corpus, tokens=args.corpus_tokens),
        fluency=args.fluency,
        text=tuple(drift.read_texts(str(held_out))) if held_out else (),
        kl_tokens=args.kl_tokens,
        checkpoints=args.checkpoints,
    )
    for seed in seeds:
        for method in methods:
            run(
                model, plan, method, seed, rows, args.label, progress_for(),
                say=lambda line: print(line, file=sys.stderr, flush=True),
            )  # fmt: skip
    print(plain(rows.rows))


def _beside(corpus: str) -> Path | None:
    path = Path(corpus)
    found = path.with_name(f"{path.stem}_heldout{path.suffix}")
    return found if path.is_file() and found.is_file() else None
