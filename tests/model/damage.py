"""Ways to damage a model's folder: each function makes one that damages the folder that it is given."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Damage = Callable[[Path], object]

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER, SAID, GENERATION = "tokenizer.json", "tokenizer_config.json", "generation_config.json"
DOWN = "model.layers.1.mlp.down_proj.weight"


def changed(file: str, **changes: Any) -> Damage:
    """Set keys of a JSON file; ``None`` writes null."""

    def damage(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def without(file: str, *keys: str) -> Damage:
    def damage(folder: Path) -> None:
        held = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({key: held[key] for key in held if key not in keys}))

    return damage


def holding(file: str, raw: bytes | str) -> Damage:
    return lambda folder: (folder / file).write_bytes(raw.encode() if isinstance(raw, str) else raw)


def cut(file: str, share: float = 0.5) -> Damage:
    def damage(folder: Path) -> None:
        raw = (folder / file).read_bytes()
        (folder / file).write_bytes(raw[: int(len(raw) * share)])

    return damage


def gone(*files: str) -> Damage:
    def damage(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()

    return damage


def folder_for(file: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return damage


def pipe_for(file: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)

    return damage


def linked(file: str, target: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).symlink_to(target)

    return damage


def prefixed(file: str, raw: bytes) -> Damage:
    return lambda folder: (folder / file).write_bytes(raw + (folder / file).read_bytes())


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    """Change the tensors of the checkpoint in place."""

    def damage(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        change(held)
        save_file(held, folder / WEIGHTS, {"format": "pt"})

    return damage


def header(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Change the header of the checkpoint in place, and not the bytes that it speaks of."""

    def damage(folder: Path) -> None:
        raw = (folder / WEIGHTS).read_bytes()
        length = int.from_bytes(raw[:8], "little")
        about = json.loads(raw[8 : 8 + length])
        change(about)
        text = json.dumps(about).encode()
        (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])

    return damage


def sharded(change: Callable[[dict[str, Any]], object], file: str = "part.safetensors") -> Damage:
    """Put the checkpoint behind an index, and change the index."""

    def damage(folder: Path) -> None:
        names = list(load_file(folder / WEIGHTS))
        (folder / WEIGHTS).rename(folder / file)
        about: dict[str, Any] = {"metadata": {}, "weight_map": dict.fromkeys(names, file)}
        change(about)
        (folder / INDEX).write_text(json.dumps(about))

    return damage


class Bomb:
    """What runs when it is unpickled: it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def exploded(folder: Path) -> Path:
    """The file that a bomb of ``pickled`` leaves."""
    return folder.parent / f"{folder.name}-exploded"


def pickled(file: str) -> Damage:
    """Write a pickle that runs something when it is read."""
    return lambda folder: (folder / file).write_bytes(pickle.dumps(Bomb(exploded(folder))))


def both(*damages: Damage) -> Damage:
    return lambda folder: [damage(folder) for damage in damages]


def behind_an_index(index: str, file: str) -> Damage:
    """Weights as a pickle, and an index that names them."""
    body = sharded(lambda _: None, file)
    return both(body, lambda folder: (folder / INDEX).rename(folder / index), pickled(file))


def in_tokenizer(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(folder: Path) -> None:
        held = json.loads((folder / TOKENIZER).read_text())
        change(held)
        (folder / TOKENIZER).write_text(json.dumps(held))

    return damage


def added(token: str, number: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": token, "special": True, **flags}


def moved(held: dict[str, Any]) -> None:
    """Move a learned token to an id far outside."""
    vocabulary = held["model"]["vocab"]
    vocabulary[next(reversed(vocabulary))] = 5000


def longer(held: dict[str, Any]) -> None:
    vocabulary = held["model"]["vocab"]
    vocabulary.update({f"token{i}": len(vocabulary) + i for i in range(50)})


def nested(depth: int) -> str:
    return '{"model_type": "llama", "a": ' + "[" * depth + "]" * depth + "}"
