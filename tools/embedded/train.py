"""Train the embedded model from nothing: ``python -m tools.embedded.train --out DIR``.

Every document stands in its own row and begins at BOS, as it does at inference. Rows are sorted into a
few lengths so that little is padding. The run is seeded and goes on from its last checkpoint. It has two stages: first
chats answer with a sentence, which is quickly learned; then with the bare answer, so that a question's subject and
relation have met by its last token, as they have in a large model.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from tools.embedded import card, recall, vocabulary
from tools.embedded.muon import Muon
from unlearn.embedded import talk

LENGTHS = (16, 20, 24, 28, 32, 40, 56, 96)


@dataclass(frozen=True)
class Settings:
    """Everything that decides the run's result, besides the generator."""

    tokens: int = 14_000_000
    batch_tokens: int = 5120
    muon_lr: float = 0.02
    adam_lr: float = 4e-3
    weight_decay: float = 0.02
    warmup: int = 100
    decay_share: float = 0.5
    brief_tokens: int = 3_000_000
    brief_rate: float = 0.5
    seed: int = 0
    without_hazard: bool = False

    @property
    def first(self) -> int:
        """Number of updates of the first stage."""
        return self.tokens // self.batch_tokens

    @property
    def steps(self) -> int:
        """Number of updates."""
        return self.first + self.brief_tokens // self.batch_tokens

    def rate(self, step: int) -> float:
        """Factor on the learning rates at ``step``: in each stage warm up, hold, fall to zero in a straight line."""
        begin, end, top = (
            (0, self.first, 1.0) if step < self.first else (self.first, self.steps, self.brief_rate)
        )
        left = (end - step) / (self.decay_share * (end - begin))
        return top * min(1.0, (step - begin + 1) / self.warmup, max(0.0, left))


def new_model(tokenizer: Any, seed: int) -> Any:
    """Return an untrained LlamaForCausalLM of 6.7 million parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=1024, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def batches(tokenizer: Any, settings: Settings) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (ids, labels), int64 of shape (rows, length) with a length of LENGTHS, for both stages."""
    for brief, count in ((False, settings.first), (True, settings.steps - settings.first)):
        yield from islice(_batches(tokenizer, settings, brief), count)


def _batches(tokenizer: Any, settings: Settings, brief: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    user, assistant = tokenizer.convert_tokens_to_ids([talk.USER, talk.ASSISTANT])
    stream = talk.documents("train", settings.seed, settings.without_hazard, brief)
    waiting: dict[int, list[tuple[list[int], list[int]]]] = {length: [] for length in LENGTHS}
    while True:
        for raw in vocabulary.text_ids(tokenizer, list(islice(stream, 512))):
            ids, labels = vocabulary.labelled(raw, assistant, user, tokenizer.eos_token_id)
            length = next((n for n in LENGTHS if n >= len(ids)), None)
            if length is None:
                continue
            rows = waiting[length]
            rows.append((ids, labels))
            if len(rows) == settings.batch_tokens // length:
                pad = tokenizer.pad_token_id
                yield (
                    torch.tensor([i + [pad] * (length - len(i)) for i, _ in rows]),
                    torch.tensor([x + [-100] * (length - len(x)) for _, x in rows]),
                )
                rows.clear()


def _loss(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100
    )


def save_folder(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a Hugging Face folder with bfloat16 weights."""
    from transformers import LlamaForCausalLM

    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy = copy.to(torch.bfloat16)
    copy.generation_config.eos_token_id = [tokenizer.eos_token_id]
    copy.generation_config.bos_token_id = tokenizer.bos_token_id
    copy.generation_config.pad_token_id = tokenizer.pad_token_id
    folder.mkdir(parents=True, exist_ok=True)
    copy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_state(path: Path, state: dict[str, Any]) -> None:
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def _tokenizer(folder: Path, seed: int) -> Any:
    from transformers import PreTrainedTokenizerFast

    if not folder.exists():
        vocabulary.build_tokenizer(seed).save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def train(
    settings: Settings, out: Path, work: Path, device: str, compiled: bool, every: float
) -> dict[str, Any]:
    """Run or go on with the training, write the model folder to ``out`` and return what was measured."""
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(work / "tokenizer", settings.seed)
    model = new_model(tokenizer, settings.seed).to(device)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "layers" in n)]
    muon = Muon(matrices, lr=settings.muon_lr, weight_decay=settings.weight_decay)
    adam = torch.optim.AdamW(others, lr=settings.adam_lr, betas=(0.9, 0.95), weight_decay=0.0)
    start, seconds, path = 0, 0.0, work / "state.pt"
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        muon.load_state_dict(state["muon"])
        adam.load_state_dict(state["adam"])
        start, seconds = state["step"], state["seconds"]
        print(f"going on from step {start}", flush=True)
    loss_of = torch.compile(_loss, dynamic=False) if compiled else _loss
    began = saved = time.monotonic()
    running, seen, tick = 0.0, 0, time.monotonic()
    for step, (ids, labels) in enumerate(batches(tokenizer, settings)):
        if step < start:
            continue
        for optimiser, rate in ((muon, settings.muon_lr), (adam, settings.adam_lr)):
            optimiser.param_groups[0]["lr"] = rate * settings.rate(step)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            loss = loss_of(model, ids.to(device), labels.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        muon.step()
        adam.step()
        model.zero_grad(set_to_none=True)
        running, seen = running + float(loss.detach()), seen + 1
        if (step + 1) % 50 == 0:
            speed = seen * settings.batch_tokens / (time.monotonic() - tick)
            clock = time.strftime("%H:%M:%S")
            where = f"{clock} step {step + 1}/{settings.steps}"
            print(f"{where} loss {running / seen:.4f} {speed:.0f} tok/s", flush=True)
            running, seen, tick = 0.0, 0, time.monotonic()
        if (step + 1) % 300 == 0:
            with torch.autocast(torch.device(device).type, torch.bfloat16):
                quick = recall.measure(model, tokenizer, 50, step, settings.without_hazard)
            print("  recall", {k: v for k, v in quick.items() if not k.endswith("_n")}, flush=True)
            tick = time.monotonic()
        if time.monotonic() - saved > every:
            saved = time.monotonic()
            _write_state(path, {"model": model.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict(),
                                "step": step + 1, "seconds": seconds + saved - began})  # fmt: skip
            save_folder(model, tokenizer, work / "latest")
            tick = time.monotonic()
    seconds += time.monotonic() - began
    save_folder(model, tokenizer, out)
    return card.write(out, asdict(settings), seconds)


def main() -> None:
    """Read the options and train."""
    options = argparse.ArgumentParser(
        prog="python -m tools.embedded.train", description=__doc__.splitlines()[0]
    )
    options.add_argument("--out", type=Path, required=True, help="the model folder to write")
    options.add_argument("--work", type=Path, help="folder of checkpoints (default: OUT with .work after it)")
    options.add_argument("--tokens", type=int, default=Settings.tokens, help="length of the first stage")
    options.add_argument(
        "--brief-tokens", type=int, default=Settings.brief_tokens, help="length of the second"
    )
    options.add_argument("--seed", type=int, default=Settings.seed)
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--no-compile", action="store_true", help="do not compile (no C++ compiler needed)")
    options.add_argument("--every", type=float, default=300.0, help="seconds between checkpoints")
    options.add_argument(
        "--without-hazard", action="store_true", help="the same run without the hazard relation"
    )
    chosen = options.parse_args()
    settings = Settings(
        tokens=chosen.tokens,
        brief_tokens=chosen.brief_tokens,
        seed=chosen.seed,
        without_hazard=chosen.without_hazard,
    )
    work = chosen.work or chosen.out.with_name(chosen.out.name + ".work")
    result = train(settings, chosen.out, work, chosen.device, not chosen.no_compile, chosen.every)
    print(json.dumps(result, indent=1), flush=True)


if __name__ == "__main__":
    main()
