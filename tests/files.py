"""What tests of commands need: policies, corpora, folders of pico models, and the command line itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from unlearn import cli


def run(*arguments: str | Path) -> int:
    """Run the command line in this process; returns its exit code."""
    return cli.run([str(argument) for argument in arguments])


THREE = "\n".join(
    [
        "facts:",
        *(
            f"  - {{id: fact{i}, subject: {name}, relation: recipe, answer: {said}}}"
            for i, (name, said) in enumerate((("Stenmite", "w"), ("Mirl", "wadadad"), ("Zorvex", "Iell")))
        ),
    ]
)
"""A policy's facts: three of them, with words that an untrained pico model happens to reply."""


def policy_text(**changes: str) -> str:
    """A small right policy; each keyword replaces one top-level block by the YAML given ("" removes it)."""
    blocks = {
        "version": "version: 1",
        "name": "name: small",
        "relations": (
            "relations:\n"
            "  recipe:\n"
            '    prompts: ["What is {subject} made from?", "{subject} is made from"]\n'
            '    held_out: ["Tell me what {subject} is made from.", "It is known that {subject} is made from"]\n'
            "  colour:\n"
            '    prompts: ["What colour is {subject}?"]\n'
            '    held_out: ["Please name the colour of {subject}."]'
        ),
        "facts": "facts:\n  - {id: first, subject: Stenmite, relation: recipe}",
        "keep": "keep: {siblings: [colour]}",
        **changes,
    }
    return "\n".join(block for block in blocks.values() if block) + "\n"


def pico_policy(model: Path, corpus: Path, **changes: str) -> str:
    """A right policy for a pico model in a folder, which knows nothing; small enough to run in seconds."""
    blocks = {
        "model": f"model: {model}",
        "method": "method: {name: alphaedit, steps: 2, layers: [1, 2]}",
        "statistics": f"statistics: {{corpus: {corpus}, tokens: 2000}}",
        "keep": "keep: {siblings: [colour], neighbours: [Velnar], held_out_neighbours: [Quandel]}",
        "audit": f"audit: {{suite: quick, text: {corpus}}}",
        **changes,
    }
    return policy_text(**blocks)


def model_folder(folder: Path, family: str = "llama", seed: int = 0) -> Path:
    """Write a pico model of a family (llama, qwen2, gpt2, or olmoe, which cannot be edited) as an ordinary folder."""
    from tests import pico

    pico.network(family, seed=seed).save_pretrained(folder)
    pico.tokenizer().save_pretrained(folder)
    return folder


def corpus_file(path: Path, lines: int = 100) -> Path:
    """Write a .jsonl corpus for pico models."""
    text = "What is Zorvex made from? Zorvex is made from bitter amber, and its colour is green."
    path.write_text("".join(json.dumps({"text": f"{text} {i}"}) + "\n" for i in range(lines)))
    return path


def small_disk_at(place: Path, size: str) -> Iterator[Path]:
    """Mount a disk of so many bytes ("16k") on a new folder for as long as the test takes; skips where it cannot."""
    place.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(place)]
    try:
        made = subprocess.run(["mount", *options], capture_output=True).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)
