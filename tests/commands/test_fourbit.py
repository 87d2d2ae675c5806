"""A run on a model in 4 bits: edited, audited, said to be quantised, and exported as an adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests import fourbit, pico
from tests.files import THREE, corpus_file, pico_policy, run
from unlearn.model import fourbit as layers
from unlearn.model.editable import EditableModel
from unlearn.model.merged import ADAPTER, WEIGHTS

pytestmark = fourbit.needed


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a quantised model, a policy, and a run of it."""
    folder = tmp_path_factory.mktemp("fourbit-run")
    fourbit.quantised(pico.network("llama"), folder / "model")
    fourbit.quantised(pico.network("llama", seed=1), folder / "other")
    corpus = corpus_file(folder / "corpus.jsonl")
    (folder / "policy.yaml").write_text(pico_policy(folder / "model", corpus, facts=THREE))
    assert run("apply", folder / "policy.yaml", "--out", folder / "run", "--quiet") == 3
    return folder


def measured(folder: Path) -> dict[str, tuple[float, float]]:
    """What a report says, before and after; -1 for what was not measured."""
    rows = json.loads((folder / "report.json").read_text())["measurements"]
    both = {row["name"]: (row["before"], row["after"]) for row in rows}
    return {name: tuple(-1.0 if one is None else one for one in values) for name, values in both.items()}  # type: ignore[misc]


def test_report_and_manifest_say_that_the_base_is_quantised(place: Path) -> None:
    report = json.loads((place / "run" / "report.json").read_text())
    assert report["manifest"]["base"]["quantised"] == "nf4 28"
    plain = pico.network("llama")
    assert report["manifest"]["base"]["parameters"] == sum(one.numel() for one in plain.parameters())
    assert "the model before it was quantised: its matrices are in 4 bits (nf4 28)" in report["not_tested"]
    assert "matrices in 4 bits" in (place / "run" / "report.md").read_text()


def test_all_that_is_measured_is_that_of_the_dequantised_model(place: Path, tmp_path: Path) -> None:
    model = EditableModel.load(str(place / "model"), device="cpu")
    plain = fourbit.dense(model, pico.network("llama"))
    plain.model.save_pretrained(tmp_path / "model")
    plain.tokenizer.save_pretrained(tmp_path / "model")
    options = ("--model", tmp_path / "model", "--out", tmp_path / "run", "--quiet")
    assert run("apply", place / "policy.yaml", *options) == 3
    one, other = measured(place / "run"), measured(tmp_path / "run")
    assert one.keys() == other.keys() and len(one) > 10
    for name, values in one.items():
        assert values == pytest.approx(other[name], rel=1e-3, abs=1e-6), name


def test_it_verifies(place: Path) -> None:
    assert run("verify", place / "run", "--quiet") == 0


def test_it_is_exported_as_an_adapter_which_is_audited_alike(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", place / "run", tmp_path / "merged", "--quiet") == 1
    assert "write the patch as a LoRA adapter: `unlearn export --adapter`" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()
    assert run("export", place / "run", tmp_path / "adapter", "--adapter", "--quiet") == 0
    assert {ADAPTER, WEIGHTS, "tokenizer.json"} <= {path.name for path in (tmp_path / "adapter").iterdir()}
    options = ("--policy", place / "policy.yaml", "--out", tmp_path / "audit", "--quiet")
    assert run("audit", tmp_path / "adapter", *options) == 3
    one, other = measured(place / "run"), measured(tmp_path / "audit")
    for name, values in one.items():
        assert values == pytest.approx(other[name], rel=1e-3, abs=1e-6), name


def test_a_model_in_4_bits_is_a_candidate_of_the_one_that_it_was_made_from(
    place: Path, tmp_path: Path
) -> None:
    plain = Path(shutil.copytree(place / "model-plain", tmp_path / "plain"))
    pico.tokenizer().save_pretrained(plain)
    options = ("--policy", place / "policy.yaml", "--model", plain, "--out", tmp_path / "audit", "--quiet")
    assert run("audit", place / "model", *options) == 3
    base, packed = (EditableModel.load(str(folder), device="cpu") for folder in (plain, place / "model"))
    wanted = {
        f"{path}.weight": float(
            (layers.matrix(module) - base.weight(f"{path}.weight")).norm()
            / base.weight(f"{path}.weight").norm()
        )
        for path, module in layers.packed(packed.model)
    }
    assert measured(tmp_path / "audit")["drift.norm"][1] == pytest.approx(max(wanted.values()), rel=1e-4)


def test_another_base_is_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--adapter", "--model", place / "other", "--quiet")
    assert run("export", place / "run", tmp_path / "adapter", *options) == 1
    assert "was made for another model" in capsys.readouterr().err


def test_saving_the_edited_model_is_refused_before_anything_long(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--out", tmp_path / "run", "--save-model", "--quiet")
    assert run("apply", place / "policy.yaml", *options) == 1
    assert "is quantised, and in 4 bits" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_attack_on_its_weights_is_a_failed_limit_with_a_reason(place: Path, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "name: attacks\ndescription: some\nmeasurements: [leak.direct, attack.int4, attack.few_shot, capability]\n"
        "max_new_tokens: 8\ntask_items: 5\n"
    )
    policy = tmp_path / "policy.yaml"
    audit = f"audit: {{suite: {suite}, tasks: [unlearn_kept_facts]}}"
    policy.write_text(pico_policy(place / "model", place / "corpus.jsonl", facts=THREE, audit=audit))
    patch = place / "run" / "patch.safetensors"
    assert run("audit", patch, "--policy", policy, "--out", tmp_path / "audit", "--quiet") == 3
    rows = json.loads((tmp_path / "audit" / "report.json").read_text())["measurements"]
    found = {row["name"]: row for row in rows}
    assert found["attack.int4"]["after"] is None and not found["attack.int4"]["passed"]
    assert (
        "those of this model are in 4 bits (nf4 28), which cannot be written"
        in found["attack.int4"]["reason"]
    )
    assert found["attack.few_shot"]["after"] is not None  # the control: this one changes no weight
    assert found["capability.unlearn_kept_facts"]["after"] is not None
