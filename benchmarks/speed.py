"""Speed: the seconds of an edit, step by step, on a model of a given shape with random weights, or on a real one.

    python benchmarks/speed.py --shape llama-3-8b --policy world:24 --json OUT
    python benchmarks/speed.py --shape llama-3-8b --policy world:100 --prompts 1 --dtype float32 --published 4

Nothing but time and memory is measured: a model of random weights knows nothing, never converges and never holds, so
that every step and round is taken. `--published N` times the published procedure on the same facts, its values on N.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # called as a script: the package `benchmarks` lies in the folder above
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch  # noqa: E402

from benchmarks import published  # noqa: E402
from benchmarks.options import guarded, settings_of  # noqa: E402
from benchmarks.rows import Row, Rows, key_of  # noqa: E402
from benchmarks.worlds import case  # noqa: E402
from unlearn import embedded  # noqa: E402
from unlearn.edit import forms  # noqa: E402
from unlearn.edit.choose import options, placed, settle  # noqa: E402
from unlearn.edit.pipeline import edit  # noqa: E402
from unlearn.edit.requests.resolve import resolve  # noqa: E402
from unlearn.errors import PolicyError  # noqa: E402
from unlearn.model.editable import EditableModel  # noqa: E402
from unlearn.model.prompts import plain_prompt  # noqa: E402
from unlearn.model.requests import Requests  # noqa: E402
from unlearn.policy import StatisticsSpec  # noqa: E402
from unlearn.policy.method import METHOD_NAMES  # noqa: E402
from unlearn.store import Store  # noqa: E402

LLAMA = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-3-8b": (
        "llama",
        {**LLAMA, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
    ),
    "llama-3.2-1b": (
        "llama",
        {**LLAMA, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16},
    ),
    "qwen2.5-7b": (
        "qwen2",
        {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "hidden_size": 3584,
         "intermediate_size": 18944, "num_hidden_layers": 28},
    ),
    "small": (
        "llama",
        {"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 8192, "hidden_size": 64,
         "intermediate_size": 128, "num_hidden_layers": 6},
    ),
}  # fmt: skip
"""Family and sizes, from the published configurations of these models; `small` is for a machine without a GPU."""


class Stopwatch:
    """A Progress that notes how long the steps of each name took, on a device that has finished them."""

    def __init__(self, device: torch.device) -> None:
        """Nothing has run yet."""
        self.seconds: dict[str, float] = {}
        self.times: dict[str, int] = {}
        self._device = device

    @contextmanager
    def step(self, label: str, total: int | None = None) -> Iterator[Any]:
        """Time one step."""
        self._wait()
        start = time.perf_counter()
        yield self
        self._wait()
        name = label.lower()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.times[name] = self.times.get(name, 0) + 1

    def advance(self, n: int = 1) -> None:
        """Do nothing: the whole step is timed."""

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def random_model(shape: str, device: torch.device, dtype: torch.dtype) -> EditableModel:
    """A model with random weights, and the embedded model's tokenizer, whose ids are among its own."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    family, sizes = SHAPES[shape]
    config = AutoConfig.for_model(family, max_position_embeddings=8192, **sizes)
    tokenizer = AutoTokenizer.from_pretrained(str(embedded.path()))
    torch.manual_seed(0)
    with device:
        network = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return EditableModel(network.to(device), tokenizer, shape, dtype)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="speed", description=__doc__.splitlines()[0])
    where = options.add_mutually_exclusive_group(required=True)
    where.add_argument("--shape", choices=list(SHAPES), help="random weights of this shape")
    where.add_argument("--model", help="a local folder, a hub id, or `embedded`")
    options.add_argument("--policy", default="world:24", help="world:N")
    options.add_argument("--prompts", type=int, help="only so many prompts of each relation")
    options.add_argument("--method", default="alphaedit", choices=METHOD_NAMES)
    options.add_argument("--set", action="append", default=[], metavar="method.KEY=VALUE")
    options.add_argument(
        "--tokens", type=int, default=200_000, help="of the corpus behind the key statistics"
    )
    options.add_argument("--device", default="auto")
    options.add_argument(
        "--dtype", default="bfloat16", help="of random weights: bfloat16, float16 or float32"
    )
    options.add_argument("--threads", type=int, help="CPU threads")
    options.add_argument(
        "--published",
        type=int,
        default=0,
        metavar="N",
        help="time the published procedure as well, values on N facts",
    )
    options.add_argument("--label", help="what to call this run")
    options.add_argument("--json", type=Path, metavar="OUT", help="rows, added as they come")
    return options


def requests_of(args: argparse.Namespace) -> Requests:
    """The policy's requests, answered by the embedded model: random weights have nothing to say."""
    found = case(args.policy, 0, settings_of(args.method, args.set), {})
    data = found.policy.model_dump()
    data["statistics"] = StatisticsSpec(tokens=args.tokens).model_dump()
    if args.prompts:
        for spec in data["relations"].values():
            spec["prompts"] = spec["prompts"][-args.prompts :]  # the last ones are statements
    policy = type(found.policy).model_validate(data)
    return resolve(EditableModel.load("embedded", "cpu"), policy)


def run(args: argparse.Namespace, rows: Rows) -> None:
    """Edit twice, with an empty cache and with the first edit's, and print the seconds of every step."""
    device = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    )
    dtype = getattr(torch, args.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise PolicyError(f"--dtype {args.dtype}: use bfloat16, float16 or float32")
    requests = requests_of(args)
    model = (
        random_model(args.shape, device, dtype) if args.shape else EditableModel.load(args.model, args.device)
    )
    policy = requests.policy
    settings: Any = settle(model, policy, options(policy.method)[0], requests.facts)
    layers, _ = placed(model, requests, settings)
    about = {
        "shape": args.shape or args.model, "dtype": str(model.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads",
        "label": args.label, "method": args.method, "policy": args.policy, "facts": len(requests.facts),
        "layers": list(layers), "settings": settings.model_dump(mode="json"),
    }  # fmt: skip
    print(
        f"{about['shape']}, {about['dtype']}, {about['device']}: {len(requests.facts)} facts, layers {layers}"
    )
    with tempfile.TemporaryDirectory() as cache:
        for state in ("first", "again"):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            watch = Stopwatch(device)
            with watch.step("total"):
                edit(model, requests, Store.at(Path(cache)), watch)
            total = watch.seconds.pop("total")
            steps = {**watch.seconds, "other": total - sum(watch.seconds.values())}
            memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
            _add(rows, {**about, "state": state, "seconds": total, "steps": steps, "rounds": watch.times,
                        "memory_gib": memory})  # fmt: skip
    if args.published:
        laid = forms.build(model, requests, requests.facts, "subject", False, 1, settings.prefixes)
        mine: list[list[forms.Row]] = [[] for _ in requests.facts]
        for row in laid.rows:
            if not row.keep and row.sites:
                mine[row.request].append(row)
        kept = [plain_prompt(model.tokenizer, f"{fact.subject} is a").ids for fact in requests.facts]
        steps = published.seconds(model, mine, kept, layers, settings.steps, args.published)
        _add(rows, {**about, "state": "published", "seconds": steps.pop("total"), "steps": steps})


def _add(rows: Rows, row: Row) -> None:
    rows.add({**row, "run": key_of(row), "edits": row["facts"]})
    parts = ", ".join(f"{name} {value:.1f}" for name, value in row["steps"].items() if value >= 0.05)
    memory = f", {row['memory_gib']:.1f} GiB" if row.get("memory_gib") else ""
    print(f"{row['state']}: {row['seconds']:.1f} s{memory} ({parts})", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    return guarded(lambda: run(args, Rows(args.json)))


if __name__ == "__main__":
    sys.exit(main())
