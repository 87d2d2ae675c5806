"""Checkpoints that are broken, and what the error has to name."""

from __future__ import annotations

import shutil

import torch

from tests.model.broken import Row
from tests.model.damage import (
    DOWN,
    INDEX,
    WEIGHTS,
    behind_an_index,
    both,
    cut,
    folder_for,
    gone,
    header,
    holding,
    linked,
    pickled,
    pipe_for,
    prefixed,
    sharded,
    tensors,
)

CHECKPOINTS: dict[str, Row] = {
    "no weights": (gone(WEIGHTS), "no weights in safetensors"),
    "an empty file": (holding(WEIGHTS, b""), "model.safetensors"),
    "a header cut off": (cut(WEIGHTS, 0.001), "model.safetensors"),
    "tensors cut off": (cut(WEIGHTS, 0.9), "model.safetensors"),
    "an absurd header": (prefixed(WEIGHTS, b"\xff" * 8), "model.safetensors"),
    "a header of zeros": (prefixed(WEIGHTS, b"\0" * 8), "model.safetensors"),
    "text": (holding(WEIGHTS, "These are no weights.\n"), "model.safetensors"),
    "a pointer": (holding(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "bytes behind": (lambda folder: (folder / WEIGHTS).open("ab").write(b"\0" * 64), "model.safetensors"),
    "tensors that overlap": (
        header(lambda about: about[DOWN].update(data_offsets=[0, 8192])),
        "model.safetensors",
    ),
    "tensors beyond the end": (
        header(lambda about: about[DOWN].update(data_offsets=[2**40, 2**40 + 8192])),
        "model.safetensors",
    ),
    "a dtype that is none": (header(lambda about: about[DOWN].update(dtype="F33")), "model.safetensors"),
    "a shape that does not fit": (
        header(lambda about: about[DOWN].update(shape=[1, 1])),
        "model.safetensors",
    ),
    "a shape above all numbers": (
        header(lambda about: about[DOWN].update(shape=[2**62, 2**62])),
        "model.safetensors",
    ),
    "no tensors": (header(lambda about: about.clear()), "model.safetensors"),
    "integers for weights": (
        tensors(lambda held: held.update({DOWN: held[DOWN].to(torch.int8)})),
        f"model.safetensors: {DOWN} is stored as I8",
    ),
    "floats of 8 bits": (
        tensors(lambda held: held.update({DOWN: held[DOWN].to(torch.float8_e4m3fn)})),
        f"model.safetensors: {DOWN} is stored as F8_E4M3",
    ),
    "a missing tensor": (tensors(lambda held: held.pop(DOWN)), f"lacks 1 weights .*{DOWN}"),
    "a turned tensor": (
        tensors(lambda held: held.update({DOWN: held[DOWN].T.contiguous()})),
        f"model.safetensors: {DOWN} has the shape",
    ),
    "a tensor with an axis more": (
        tensors(lambda held: held.update({DOWN: held[DOWN][None]})),
        f"model.safetensors: {DOWN} has the shape",
    ),
    "NaN": (
        tensors(lambda held: held[DOWN][0].fill_(float("nan"))),
        f"{DOWN} holds numbers that are not finite",
    ),
    "an infinity": (
        tensors(lambda held: held["model.norm.weight"][0].fill_(float("inf"))),
        "model.norm.weight holds numbers that are not finite",
    ),
    "NaN where nobody looks": (
        tensors(lambda held: held["model.embed_tokens.weight"][300].fill_(float("nan"))),
        "model.embed_tokens.weight holds numbers that are not finite",
    ),
    "a folder": (folder_for(WEIGHTS), "model.safetensors cannot be read: it is a folder"),
    "a pipe": (pipe_for(WEIGHTS), "model.safetensors cannot be read: it is a pipe"),
    "a device": (linked(WEIGHTS, "/dev/zero"), "model.safetensors cannot be read: it is a device"),
    "a link to itself": (linked(WEIGHTS, WEIGHTS), "model.safetensors cannot be read: Too many levels"),
    "an index of a pickle": (behind_an_index(INDEX, "x.bin"), "'x.bin', which is not in safetensors"),
    "a pickle with an index": (behind_an_index("pytorch_model.bin.index.json", "x.bin"), "pickle"),
    "a pickle": (both(gone(WEIGHTS), pickled("pytorch_model.bin")), "pytorch_model.bin, a pickle"),
    "a file of torch": (both(gone(WEIGHTS), pickled("model.pt")), "model.pt, a pickle"),
    "a pickle that is named safetensors": (pickled(WEIGHTS), "model.safetensors"),
    "a shard outside": (
        sharded(lambda about: about["weight_map"].update({DOWN: "../part.safetensors"})),
        "outside of the model's folder",
    ),
    "a shard anywhere": (
        sharded(lambda about: about["weight_map"].update({DOWN: "/part.safetensors"})),
        "outside of the model's folder",
    ),
    "a shard that is missing": (
        sharded(lambda about: about["weight_map"].update({DOWN: "other.safetensors"})),
        "other.safetensors is missing",
    ),
    "a tensor in two shards": (
        both(
            sharded(lambda about: about["weight_map"].update({DOWN: "other.safetensors"})),
            lambda folder: shutil.copy(folder / "part.safetensors", folder / "other.safetensors"),
        ),
        "is also in other.safetensors",
    ),
    "an index without files": (sharded(lambda about: about.pop("weight_map")), "index.json: weight_map"),
    "an index of numbers": (
        sharded(lambda about: about["weight_map"].update({DOWN: 7})),
        "index.json: weight_map",
    ),
    "an index of nothing": (sharded(lambda about: about["weight_map"].clear()), "index.json: weight_map"),
    "an index that is a list": (
        both(sharded(lambda _: None), holding(INDEX, "[]")),
        "index.json: it should hold",
    ),
    "an index cut off": (both(sharded(lambda _: None), cut(INDEX)), "index.json is not JSON"),
    "an index without metadata": (sharded(lambda about: about.pop("metadata")), "index.json"),
    "an adapter beside it": (
        both(
            holding("adapter_config.json", '{"peft_type": "LORA", "base_model_name_or_path": "a/b"}'),
            pickled("adapter_model.bin"),
        ),
        "adapter_config.json: an adapter beside a whole model",
    ),
}
"""What may be wrong with the weights."""
