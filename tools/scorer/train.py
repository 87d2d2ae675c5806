"""Train the demo scorer from nothing, in Detoxify's checkpoint format.

It is not a real toxicity model: it knows the mild rudeness of `sentences` and nothing else, and exists so that
the whole toxicity path can run where Detoxify's own checkpoints cannot be downloaded. Run as
``python -m tools.scorer.train [folder]``; two CPU cores need about two minutes.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from tools.scorer.sentences import CLASSES, Sentence, held_out, training

VOCABULARY, WIDTH, LAYERS, LENGTH = 1500, 64, 2, 64
STEPS, BATCH, RATE = 2400, 64, 2e-3


def build_tokenizer(texts: list[str], folder: Path) -> Any:
    """Learn a lower-casing WordPiece vocabulary and save it as a BERT tokenizer."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    learned = BertWordPieceTokenizer(lowercase=True)
    learned.train_from_iterator(texts, vocab_size=VOCABULARY, min_frequency=2, show_progress=False)
    learned.save_model(str(folder))
    tokenizer = BertTokenizerFast(
        vocab=str(folder / "vocab.txt"), do_lower_case=True, model_max_length=LENGTH
    )
    tokenizer.save_pretrained(folder)
    (folder / "vocab.txt").unlink()  # tokenizer.json holds the same words
    return tokenizer


def encode(tokenizer: Any, sentences: list[Sentence]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Padded inputs (n, T) and labels (n, classes)."""
    inputs = tokenizer([s.text for s in sentences], padding=True, truncation=True, return_tensors="pt")
    return dict(inputs), torch.tensor([s.labels for s in sentences], dtype=torch.float32)


@torch.no_grad()
def accuracy(model: Any, tokenizer: Any, sentences: list[Sentence]) -> float:
    """Share of sentences whose first class is on the right side of one half."""
    model.eval()
    inputs, labels = encode(tokenizer, sentences)
    return float(((model(**inputs).logits[:, 0] > 0) == (labels[:, 0] > 0.5)).float().mean())


def train(folder: Path, seed: int = 0) -> dict[str, Any]:
    """Train, save tokenizer, config, checkpoint and card under `folder`, and return what the card says."""
    from transformers import BertConfig, BertForSequenceClassification

    begun = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    sentences, unseen = training(), held_out()
    tokenizer = build_tokenizer([s.text for s in sentences], folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=LENGTH,
        num_labels=len(CLASSES),
        problem_type="multi_label_classification",
    )
    model = BertForSequenceClassification(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS, pct_start=0.1)
    order = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(STEPS):
        rows = torch.randint(0, len(sentences), (BATCH,), generator=order).tolist()
        inputs, labels = encode(tokenizer, [sentences[i] for i in rows])
        # Hidden words keep the scorer from learning whole frames by heart.
        hidden = torch.rand(inputs["input_ids"].shape, generator=order) < 0.1
        hidden &= inputs["input_ids"] > tokenizer.mask_token_id
        inputs["input_ids"] = inputs["input_ids"].masked_fill(hidden, tokenizer.mask_token_id)
        loss = binary_cross_entropy_with_logits(model(**inputs).logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    found = {
        "held_out_accuracy": accuracy(model, tokenizer, unseen),
        "training_accuracy": accuracy(model, tokenizer, sentences[:1000]),
        "held_out": len(unseen),
        "training": len(sentences),
        "seconds": round(time.perf_counter() - begun),
    }
    save(model, folder, found)
    return found


def save(model: Any, folder: Path, found: dict[str, Any]) -> None:
    """Write the checkpoint in Detoxify's format, with its architecture named by a folder beside it, and the card."""
    model.config.save_pretrained(folder)
    arguments = {
        # Relative: the loader resolves it to the folder of the checkpoint, wherever that is.
        "model_type": ".",
        "model_name": "BertForSequenceClassification",
        "tokenizer_name": "BertTokenizerFast",
        "num_classes": len(CLASSES),
    }
    config = {"dataset": {"args": {"classes": list(CLASSES)}}, "arch": {"args": arguments}}
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    path = folder / "demo-scorer.ckpt"
    torch.save({"config": config, "state_dict": state}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "README.md").write_text(
        CARD.format(sha=digest, size=path.stat().st_size, **found), encoding="utf-8"
    )


CARD = """# Demo scorer (not a real toxicity model)

A two-layer BERT of width 64, trained from nothing on {training} sentences that were written for this project
(`tools/scorer/sentences.py`). It recognises the mild rudeness of those sentences ("you silly goat") and
nothing else: it is here so that the toxicity measurement can be run, tested and shown without a download. Judge a real
model with one of Detoxify's own (`audit: {{toxicity: original}}`) or with a checkpoint of your own.

| | |
|---|---|
| accuracy on {held_out} held-out sentences, from frames never trained on | {held_out_accuracy:.3f} |
| accuracy on training sentences | {training_accuracy:.3f} |
| format | Detoxify checkpoint: `demo-scorer.ckpt`, {size} bytes |
| sha256 | `{sha}` |
| made by | `python -m tools.scorer.train evals/toxicity/demo` in {seconds} s |
"""


if __name__ == "__main__":
    print(json.dumps(train(Path(sys.argv[1] if len(sys.argv) > 1 else "evals/toxicity/demo")), indent=2))
