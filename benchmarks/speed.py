"""Speed: every phase of an edit and its audit, on a model of a given shape with random weights, or on a real one.

    python benchmarks/speed.py --model embedded --policy world:24 --json OUT
    python benchmarks/speed.py --model FOLDER --policy capitals.yaml --json OUT
    python benchmarks/speed.py --shape llama-3-8b --policy world:100 --prompts 1 --json OUT

For each phase: its seconds, those in which the GPU, or each thread, was busy with it, the share of these that its
multiplications would take at this machine's own rate, how many times as long it is done the plain way (one row at a
time, whole passes, dense solves) and in the published way, and the peak of memory. A model of random weights knows
nothing, never converges and never holds, so that every step is taken.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # called as a script: the package `benchmarks` lies in the folder above
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch  # noqa: E402

from benchmarks.options import chosen, settings_of, told  # noqa: E402
from benchmarks.phases import PHASES, Bench  # noqa: E402
from benchmarks.timing import Phase  # noqa: E402
from benchmarks.worlds import case  # noqa: E402
from unlearn import embedded  # noqa: E402
from unlearn.edit.requests.resolve import resolve  # noqa: E402
from unlearn.errors import PolicyError  # noqa: E402
from unlearn.files import Json  # noqa: E402
from unlearn.model.editable import EditableModel  # noqa: E402
from unlearn.model.requests import Requests  # noqa: E402
from unlearn.policy.method import METHOD_NAMES  # noqa: E402
from unlearn.runs.folder import write_whole  # noqa: E402
from unlearn.store import Store  # noqa: E402

LLAMA = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-3-8b": (
        "llama",
        {**LLAMA, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
    ),
    "llama-3-70b": (
        "llama",
        {**LLAMA, "num_attention_heads": 64, "hidden_size": 8192, "intermediate_size": 28672,
         "num_hidden_layers": 80},
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
    options.add_argument("--policy", default="world:24", help="world:N, or a policy file")
    options.add_argument("--phases", default=",".join(PHASES), help="which, with commas [default: all]")
    options.add_argument("--prompts", type=int, help="only so many prompts of each relation")
    options.add_argument("--method", default="alphaedit", choices=METHOD_NAMES)
    options.add_argument("--set", action="append", default=[], metavar="method.KEY=VALUE")
    options.add_argument("--steps", type=int, default=400, help="of the trained update")
    options.add_argument("--suite", default="quick", help="of the audit")
    options.add_argument(
        "--tokens", type=int, default=200_000, help="of the corpus behind the key statistics"
    )
    options.add_argument("--corpus", help="behind the key statistics [default: the policy's]")
    options.add_argument("--device", default="auto")
    options.add_argument(
        "--dtype", default="bfloat16", help="of random weights: bfloat16, float16 or float32"
    )
    options.add_argument("--threads", type=int, help="CPU threads")
    options.add_argument(
        "--published", type=int, default=1, metavar="N",
        help="facts whose values are optimised in the published way, and multiplied up",
    )  # fmt: skip
    options.add_argument("--json", type=Path, metavar="OUT", help="an object, written after every phase")
    return options


def requests_of(args: argparse.Namespace, model: EditableModel) -> Requests:
    """The policy's requests, answered by the model; by the embedded one for random weights, which say nothing."""
    name, embedded_ = args.model or "embedded", args.shape or args.model == "embedded"
    found = case(args.policy, 0, settings_of(args.method, args.set), {"suite": args.suite})
    data = found.policy.model_dump()
    data["model"] = name
    data["statistics"] = {**data["statistics"], "tokens": args.tokens}
    if args.corpus or embedded_:
        data["statistics"]["corpus"] = args.corpus or "embedded"
    if args.prompts:
        for spec in data["relations"].values():
            spec["prompts"] = spec["prompts"][-args.prompts :]  # the last ones are statements
    policy = type(found.policy).model_validate(data)
    return resolve(EditableModel.load("embedded", "cpu") if args.shape else model, policy)


def run(args: argparse.Namespace) -> None:
    """Time the phases that are asked for, one after another."""
    wanted = chosen("phases", args.phases, list(PHASES))
    device = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    )
    dtype = getattr(torch, args.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise PolicyError(f"--dtype {args.dtype}: use bfloat16, float16 or float32")
    model = (
        random_model(args.shape, device, dtype) if args.shape else EditableModel.load(args.model, args.device)
    )
    requests = requests_of(args, model)
    found: dict[str, Json] = {"about": _about(args, model, requests)}
    print(f"{' '.join(str(value) for value in found['about'].values())}\n\n{HEAD}", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        bench = Bench(model, requests, Store.at(Path(cache)), args.tokens, args.published, args.steps)
        for name in wanted:
            phase = PHASES[name](bench)
            found[name] = phase.row()
            print(_line(name, phase), flush=True)
            if args.json:
                write_whole(args.json, json.dumps(found, indent=2) + "\n")


def _about(args: argparse.Namespace, model: EditableModel, requests: Requests) -> dict[str, Json]:
    device = model.device
    return {
        "model": args.shape or args.model,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()} threads",
        "method": args.method,
        "policy": args.policy,
        "facts": len(requests.facts),
    }


HEAD = "| phase | seconds | busy | share of arithmetic | plain, times | published, times | peak GiB | |\n"
HEAD += "|---|---|---|---|---|---|---|---|"


def _line(name: str, phase: Phase) -> str:
    """A row of the table."""
    numbers = [f"{phase.seconds:.3g}", f"{phase.busy:.3g}"]
    numbers += ["" if phase.share is None else f"{100 * phase.share:.0f} %"]
    numbers += ["" if times is None else f"{times:.1f}" for times in (phase.plain, phase.published)]
    numbers += ["" if phase.memory_gib is None else f"{phase.memory_gib:.2f}"]
    also = ", ".join(
        f"{key.replace('_', ' ')} {value:.3g}"
        for key, value in phase.also.items()
        if isinstance(value, int | float)
    )
    return f"| `{name}` | {' | '.join(numbers)} | {also} |"


def main(argv: Sequence[str] | None = None) -> int:
    return told(parser().parse_args(argv), run)


if __name__ == "__main__":
    sys.exit(main())
