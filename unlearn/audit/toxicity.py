"""Toxicity by Detoxify, from a local checkpoint or one of its own.

Detoxify unpickles whatever it is given and asks the network for the architecture. So a checkpoint is read here first
with ``weights_only=True``, its architecture is pointed at the folder beside it, and Detoxify gets a temporary copy of
what was read.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from unlearn.audit.quiet import quiet, sentence
from unlearn.errors import AuditError
from unlearn.files import JsonObject
from unlearn.policy import EMBEDDED
from unlearn.shipped import shipped

DEMO = "demo"
DEMO_LABEL = "demo scorer (not a real toxicity model)"
BATCH = 32


@dataclass(frozen=True)
class Scorer:
    """A loaded scorer."""

    name: str
    """As in toxicity.<name>."""
    label: str
    sha256: str
    """Of the checkpoint file."""
    predict: Callable[[list[str]], JsonObject]

    def score(self, texts: Sequence[str]) -> list[float]:
        """Toxicity between 0 and 1 per text. A text without any character says nothing and scores 0.

        Raises:
            AuditError: the scorer gave something that is not a probability.
        """
        said = [i for i, text in enumerate(texts) if text.strip()]
        scores = [0.0] * len(texts)
        for start in range(0, len(said), BATCH):
            rows = said[start : start + BATCH]
            with quiet():
                found = self.predict([texts[i] for i in rows])["toxicity"]
            # Detoxify squeezes a batch of one to a bare number.
            values = [found] if isinstance(found, float) else list(found)
            if len(values) != len(rows) or not all(0.0 <= value <= 1.0 for value in values):
                raise AuditError(f"the toxicity scorer {self.name} returned values that are no probabilities")
            for i, value in zip(rows, values, strict=True):
                scores[i] = float(value)
        return scores


def load_scorer(spec: str, model: str, device: str | torch.device = "cpu") -> Scorer:
    """The scorer that a policy asks for.

    Args:
        spec: "auto" (the demo scorer for the embedded model, Detoxify's "original" for any other), "demo", a Detoxify
            name, or the path of a local checkpoint in Detoxify's format (a file, or a folder with one).

    Raises:
        AuditError: it cannot be had, or cannot be loaded safely.
    """
    if spec == "auto":
        spec = DEMO if model == EMBEDDED else "original"
    if spec == DEMO:
        return _load(shipped("evals") / "toxicity" / "demo" / "demo-scorer.ckpt", DEMO, DEMO_LABEL, device)
    with quiet():
        from detoxify.detoxify import MODEL_URLS
    if spec in MODEL_URLS:
        return _load(_download(spec, MODEL_URLS[spec]), spec, f"Detoxify {spec}", device)
    path = Path(spec)
    if path.is_dir():
        inside = sorted(p for p in path.iterdir() if p.suffix in (".ckpt", ".pt", ".pth", ".bin"))
        if len(inside) != 1:
            raise AuditError(f"the folder {path} should hold one Detoxify checkpoint, it holds {len(inside)}")
        path = inside[0]
    if not path.is_file():
        names = ", ".join(MODEL_URLS)
        raise AuditError(
            f"there is no toxicity checkpoint at {path}, and Detoxify has only the names {names}"
        )
    return _load(path, path.stem.replace(".", "-"), f"Detoxify checkpoint {path.name}", device)


def _download(name: str, url: str) -> Path:
    """Detoxify's own checkpoint, from where Detoxify takes it and into the cache that it uses."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with quiet():
                torch.hub.download_url_to_file(url, str(path), progress=False)
        except OSError as problem:
            raise AuditError(
                f"Detoxify's checkpoint {name!r} cannot be downloaded ({sentence(problem)}); "
                "give audit.toxicity the path of a local checkpoint"
            ) from None
    return path


def read_checkpoint(path: Path) -> JsonObject:
    """A checkpoint in Detoxify's format, read without running anything in it.

    Raises:
        AuditError: it holds more than tensors and plain values, or is not in the format.
    """
    try:
        loaded: JsonObject = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise AuditError(
            f"{path} is not a checkpoint of tensors and plain values only; loading it could run code, so it is refused"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError) as problem:
        raise AuditError(f"{path} cannot be read as a checkpoint: {sentence(problem)}") from None
    try:
        classes = list(loaded["config"]["dataset"]["args"]["classes"])
        arguments = loaded["config"]["arch"]["args"]
        model, tokenizer = str(arguments["model_name"]), str(arguments["tokenizer_name"])
        known = {"model_type", "model_name", "tokenizer_name", "num_classes"} == set(arguments)
        whole = known and bool(loaded["state_dict"]) and len(classes) == int(arguments["num_classes"])
    except (KeyError, TypeError, IndexError, ValueError):
        raise AuditError(f"{path} is not in Detoxify's checkpoint format (config and state_dict)") from None
    # Both names become attributes of the transformers module that are called.
    if not (whole and model.endswith("ForSequenceClassification") and "Tokenizer" in tokenizer):
        raise AuditError(f"{path} does not describe a sequence classifier in Detoxify's format")
    if not {"toxic", "toxicity"} & set(classes):
        raise AuditError(f"{path} has no class toxicity (it has {', '.join(map(str, classes))})")
    return loaded


def _load(path: Path, name: str, label: str, device: str | torch.device) -> Scorer:
    loaded = read_checkpoint(path)
    arguments = loaded["config"]["arch"]["args"]
    beside = (path.parent / str(arguments["model_type"])).resolve()
    if (beside / "config.json").is_file():
        arguments["model_type"] = str(beside)
    try:
        with quiet(), tempfile.TemporaryDirectory(prefix="unlearn-scorer-") as folder:
            from detoxify import Detoxify

            copy = Path(folder) / "checkpoint.ckpt"
            torch.save(loaded, copy)
            scorer = Detoxify(checkpoint=str(copy), device=str(device))
    except Exception as problem:  # noqa: BLE001 - third-party code: every failure is a failed measurement
        raise AuditError(f"Detoxify cannot load {path.name}: {sentence(problem)}") from None
    # transformers fills weights that a checkpoint lacks with random numbers and only logs it.
    state = scorer.model.state_dict()
    for key, tensor in loaded["state_dict"].items():
        if key in state and not torch.equal(state[key].cpu(), tensor.to(state[key].dtype)):
            raise AuditError(f"Detoxify loaded {path.name} with other weights than it holds (first: {key})")
    absent = [key for key in state if key not in loaded["state_dict"] and not key.endswith("position_ids")]
    if absent:
        raise AuditError(f"{path.name} lacks weights of its architecture (first: {absent[0]})")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Scorer(name, label, digest, scorer.predict)
