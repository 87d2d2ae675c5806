"""CounterFact and zsRE: rewrite facts or answers, and measure them, their paraphrases and their neighbours.

    python -m benchmarks.editing counterfact --model FOLDER --facts FILE --corpus FILE --methods alphaedit,memit
    python -m benchmarks.editing zsre --model FOLDER --facts FILE --corpus FILE --json OUT

The metrics are in `metrics.py`, what the edit may see in `asking.py`, what the files hold in `records.py`. zsRE's
success is teacher-forced token accuracy, as published; its neighbourhood is judged against the file's own answer, so
that the unedited model's value (`before`) is the most that can be expected.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import metrics, options
from benchmarks.options import chosen, numbers, settings_of, told
from benchmarks.records import Loaded, load_counterfact, load_zsre
from benchmarks.rows import Rows
from benchmarks.runner import Judge, Plan, run
from benchmarks.tables import plain
from unlearn.audit import drift
from unlearn.model.editable import EditableModel
from unlearn.policy import StatisticsSpec
from unlearn.policy.method import METHOD_NAMES
from unlearn.progress import progress_for

KINDS: Mapping[str, tuple[Callable[[Path], Loaded], Judge]] = {
    "counterfact": (load_counterfact, metrics.counterfact),
    "zsre": (load_zsre, metrics.zsre),
}


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = options.parser("editing", __doc__, "alphaedit")
    found.add_argument("benchmark", choices=list(KINDS))
    found.add_argument("--model", required=True, help="a local model folder, a hub id, or `embedded`")
    found.add_argument("--facts", required=True, type=Path, help="the benchmark's file")
    found.add_argument("--edits", default="10,50,100,200", help="where to measure, ascending")
    found.add_argument("--batch", type=int, default=10, help="facts per batch (rome always takes one)")
    found.add_argument(
        "--corpus", default="auto", help="text behind the key statistics: a .jsonl or .txt file, a name"
    )
    found.add_argument("--corpus-tokens", type=int, default=200_000, help="how many of its tokens to read")
    found.add_argument(
        "--text", type=Path, help="held-out text for the KL; default: CORPUS_heldout beside the corpus"
    )
    found.add_argument("--kl-tokens", type=int, default=4096)
    found.add_argument(
        "--kept", type=int, default=1000, help="most other subjects that the edit may protect; 0 for none"
    )
    found.add_argument(
        "--phrasings", action="store_true", help="show the edit other phrasings too (not standard)"
    )
    found.add_argument(
        "--chat", action="store_true", help="ask questions in the chat template (default: plain text)"
    )
    found.add_argument(
        "--fluency", type=int, default=50, help="facts whose continuations are generated; 0 for none"
    )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run a benchmark from the command line; returns the exit code."""
    return told(parser().parse_args(argv), _main)


def _main(args: argparse.Namespace) -> None:
    load, judge = KINDS[args.benchmark]
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
        benchmark=args.benchmark,
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


if __name__ == "__main__":
    sys.exit(main())
