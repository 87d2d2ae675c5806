"""A forger's tools: a run directory taken apart, changed, and put together again so that every hash fits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tests.files import run
from unlearn.audit.intervals import wilson
from unlearn.files import sha256_of_file
from unlearn.patch import Patch
from unlearn.report import Measurement, Report
from unlearn.report.files import DOCUMENTS
from unlearn.runs import manifest
from unlearn.runs.outcome import table_text
from unlearn.shipped import shipped

SUITE: dict[str, Any] = {
    "extends": "quick",
    "add": ["leak.choice", "attack.prefill"],
    "remove": ["overrefusal"],
    "sibling_prompts": 12,
    "neighbour_prompts": 12,
    "text_tokens": 256,
    "leakage_tokens": 256,
    "attack_prompts": 4,
    "likelihood_prompts": 6,
    "max_new_tokens": 12,
}
METHOD: dict[str, Any] = {"name": "memit", "steps": 25, "layers": [2, 3, 4]}


def small_run(folder: Path) -> Path:
    """A run of the embedded model in a few seconds: two facts, few prompts, and an edit that fails some limits."""
    data = yaml.safe_load((shipped("policies") / "demo.yaml").read_text())
    relations = {name: data["relations"][name] for name in ("recipe", "colour")}
    for relation in relations.values():
        relation["prompts"] = [relation["prompts"][0], relation["prompts"][-1]]
        relation.pop("two_hop", None)
        relation.pop("negation", None)
    others = {
        "neighbours": ["Raltquil", "Tomdine"],
        "held_out_neighbours": ["Drodozene", "Lasvex", "Brurzol"],
    }
    data |= {
        "relations": relations,
        "facts": [fact for fact in data["facts"] if fact["subject"] in ("Glipvex", "Kosdine")],
        "keep": {"siblings": ["colour"], "look_alikes": 0, **others},
        "method": METHOD,
        "statistics": {"tokens": 3000},
        "audit": {
            "suite": "suite.yaml",
            "tasks": ["unlearn_kept_facts"],
            "task_limit": 8,
            "limits": {"leak.held_out": 0.05, "capability": 0.5},
        },
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(SUITE))
    (folder / "policy.yaml").write_text(yaml.safe_dump(data))
    assert run("apply", folder / "policy.yaml", "--out", folder / "run", "--show-text", "--quiet") == 3
    return folder / "run"


class Forger:
    """A run taken apart.

    Attributes:
        run: its folder.
        report: the report, as JSON values.
        manifest: the manifest, as JSON values; the report's own copy follows it.
        patch: the edit; None when it has been thrown away.
    """

    def __init__(self, folder: Path) -> None:
        """Read a run directory."""
        self.run = folder
        self.report: dict[str, Any] = json.loads((folder / "report.json").read_text())
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        self.patch: Patch | None = Patch.load(folder / "patch.safetensors")

    def row(self, name: str) -> dict[str, Any]:
        """One measurement."""
        return next(m for m in self.report["measurements"] if m["name"] == name)

    def count(self, name: str, after: int, n: int | None = None) -> None:
        """Give a share another count after the edit, with its interval."""
        row = self.row(name)
        row["n"] = n or row["n"]
        row |= {"hits": after, "after": after / row["n"], "ci95": wilson(after, row["n"])}

    def scaled(self, by: float) -> Patch:
        """The patch, so many times as long."""
        assert self.patch is not None
        factors = {name: replace(f, left=f.left * by) for name, f in self.patch.factors.items()}
        return replace(self.patch, factors=factors)

    def seal(self, anew: bool = True) -> None:
        """Write everything anew: what passes, the verdict, documents, table, patch, and all hashes.

        Args:
            anew: leave the judging to the program; otherwise it stays as it was written.
        """
        if self.patch is None:
            (self.run / "patch.safetensors").unlink()
            self.manifest.pop("patch")
        else:
            self.patch.save(self.run / "patch.safetensors")
            digest = sha256_of_file(self.run / "patch.safetensors")
            self.manifest["patch"] = {"sha256": digest, "header": manifest.textless(self.patch.header)}
        self.manifest.pop("files", None)
        self.report["manifest"] = self.manifest
        if anew:
            self.report["measurements"] = [judged(row) for row in self.report["measurements"]]
            report = Report.of(
                map(Measurement.model_validate, self.report["measurements"]),
                self.report["not_tested"],
                self.manifest,
                self.report["facts"],
                self.report["drawings"],
            )
            for name, render in DOCUMENTS.items():
                (self.run / name).write_text(render(report), encoding="utf-8")
            log = self.run / "log.txt"
            head = log.read_text(encoding="utf-8").partition("\n\n")[0]
            log.write_text(f"{head}\n\n{table_text(report)}", encoding="utf-8")
        else:
            (self.run / "report.json").write_text(json.dumps(self.report))
        self.hash()

    def hash(self) -> None:
        """Write the manifest, with the hashes of whatever lies there now."""
        (self.run / "manifest.json").unlink(missing_ok=True)
        manifest.write(self.run, {key: value for key, value in self.manifest.items() if key != "files"})


def judged(row: dict[str, Any]) -> dict[str, Any]:
    """A measurement that says of itself what its numbers, its rule and its limit say."""
    for passed in (True, False, None):
        try:
            Measurement.model_validate({**row, "passed": passed})
        except ValidationError:
            continue
        return {**row, "passed": passed}
    raise AssertionError(f"no verdict fits {row['name']}")
