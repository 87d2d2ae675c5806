"""Plans for models that are not here: shapes of large models, and policies of many facts, by a dry run each.

    python -m benchmarks.planned OUT --shapes llama-3-8b,llama-3-70b --facts 100,10000 --rate 400

Writes OUT/SHAPE (a configuration and a tokenizer) and OUT/SHAPE-FACTS.yaml, on which `unlearn apply --dry-run` says the
same, and prints a table.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.speed import SHAPES
from unlearn import embedded
from unlearn.audit.estimate import spoken
from unlearn.commands.plan import plan
from unlearn.errors import UnlearnError
from unlearn.loaded import model_or_outline
from unlearn.order import Placement
from unlearn.policy.file import load_policy
from unlearn.progress import NO_PROGRESS

PROMPTS = ["What is {subject} made from?", "Tell me what goes into {subject}.", "{subject} is made from",
           "Everyone agrees that {subject} is prepared with"]  # fmt: skip
HELD_OUT = ["Can you say what {subject} is made from?", "It is known that {subject} is made from"]
NEIGHBOURS = 80
"""Other subjects that must stay, of which every fourth is asked by the audit alone."""
COLUMNS = ("shape", "facts", "method", "layers", "loading, GiB", "statistics, GiB", "edit, GiB", "audit, GiB",
           "statistics on the host, GiB", "in the cache, GiB", "statistics, FLOP", "edit, FLOP", "audit, FLOP",
           "edit, at least")  # fmt: skip


def policy_text(model: Path, count: int) -> str:
    """A policy of so many facts that states every answer."""
    names = [f"Kept {number}" for number in range(NEIGHBOURS)]
    return yaml.safe_dump(
        {
            "version": 1,
            "name": f"{model.name}-{count}",
            "model": str(model.resolve()),
            "relations": {"recipe": {"prompts": PROMPTS, "held_out": HELD_OUT}},
            "facts": [
                {"id": f"f{n}", "subject": f"Substance {n}", "relation": "recipe", "answer": f"amber {n}"}
                for n in range(count)
            ],
            "keep": {
                "neighbours": [name for i, name in enumerate(names) if i % 4 != 3],
                "held_out_neighbours": names[3::4],
            },
        },
        sort_keys=False,
    )


def written(out: Path, shape: str) -> Path:
    """The folder of a shape: a configuration, and the embedded model's tokenizer."""
    from transformers import AutoConfig, AutoTokenizer

    family, sizes = SHAPES[shape]
    config = AutoConfig.for_model(family, max_position_embeddings=8192, dtype="bfloat16", **sizes)
    config.save_pretrained(out / shape)
    AutoTokenizer.from_pretrained(str(embedded.path())).save_pretrained(out / shape)
    return out / shape


def rows(shape: str, count: int, found: dict[str, Any]) -> list[list[str]]:
    """A row for each method that a plan may come to."""
    gib = 2**30
    made = []
    for one in (found, *([found["otherwise"]] if "otherwise" in found else [])):
        steps, flop, seconds = one["memory_bytes"]["steps"], one["flop"], one["seconds"]
        edits = [name for name in flop if name not in ("statistics", "answers", "audit")]
        made.append(
            [shape, f"{count:,}", f"`{one['method']}`", f"{one['layers'][0]} to {one['layers'][-1]}"]
            + [f"{steps[name] / gib:.0f}" for name in ("loading", "statistics", "edit", "audit")]
            + [f"{one['memory_bytes']['host_statistics'] / gib:.0f}"]
            + [f"{one['disk_bytes']['statistics'] / gib:.0f}"]
            + [
                f"{flop['statistics']:.1e}",
                f"{sum(flop[name] for name in edits):.1e}",
                f"{flop['audit']:.1e}",
            ]
            + [spoken(sum(seconds[name] for name in edits))]
        )
    return made


def main(argv: list[str] | None = None) -> int:
    """Write the folders and policies, plan each, and print the table."""
    options = argparse.ArgumentParser(prog="planned", description=(__doc__ or "").splitlines()[0])
    options.add_argument("out", type=Path)
    options.add_argument("--shapes", default="llama-3-8b,llama-3-70b")
    options.add_argument("--facts", default="100,10000")
    options.add_argument("--dtype", default="bfloat16")
    options.add_argument("--rate", type=float, default=400.0, help="in 10^12 operations a second")
    args = options.parse_args(argv)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    try:
        for shape in args.shapes.split(","):
            folder = written(args.out, shape)
            for count in map(int, args.facts.split(",")):
                file = args.out / f"{shape}-{count}.yaml"
                file.write_text(policy_text(folder, count), encoding="utf-8")
                policy = load_policy(file)
                placement = Placement(device="cpu", dtype=args.dtype)
                model = model_or_outline(policy.model, placement, None, NO_PROGRESS, "auto")
                found = plan(policy, model, rate=1e12 * args.rate)
                for row in rows(shape, count, found):
                    print(f"| {' | '.join(row)} |", flush=True)
    except UnlearnError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
