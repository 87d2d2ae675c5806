"""A folder written file by file is the one that the whole model would be saved as, in the memory of one file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import families, pico
from tests.saving import save
from unlearn.algebra.low_rank import LowRank
from unlearn.errors import ModelError
from unlearn.model.editable import EditableModel
from unlearn.model.exported import export
from unlearn.model.folder import INDEX, SINGLE
from unlearn.model.loading import checkpoint
from unlearn.patch import Patch

Rename = Callable[[str], str]
MIXTURES = ("qwen3-moe", "mixtral", "gpt-oss", "mixtral bf16")
"""The first two are saved as one matrix per expert, under names of which the model has none; with small files those of
one layer lie in several."""


def patch_of(model: EditableModel, *names: str, **header: str) -> Patch:
    generator = torch.Generator().manual_seed(5)
    factors = {}
    for name in names:
        rows, columns = model.shape(name)
        left, right = torch.randn(rows, 2, generator=generator), torch.randn(2, columns, generator=generator)
        factors[name] = LowRank(left, right)
    return Patch(factors, model.fingerprint(names or None), {"model": model.name, **header})


def exported(folder: Path, patch: Patch, target: Path, dtype: str = "auto") -> Path:
    target.mkdir()
    export(checkpoint(str(folder), "cpu", dtype, False, patch.storage_dtype), patch, target)
    return target


def saved(folder: Path, patch: Patch, target: Path) -> Path:
    """The control: the whole model in memory, saved by transformers."""
    save(EditableModel.load(str(folder), device="cpu", made_in=patch.storage_dtype), target, patch)
    return target


def documents(folder: Path) -> dict[str, object]:
    """What stands beside the weights."""
    texts = {path.name: path.read_text() for path in folder.iterdir() if path.suffix in (".json", ".jinja")}
    texts.pop(INDEX, None)
    return {name: json.loads(text) if name.endswith(".json") else text for name, text in texts.items()}


def assert_same_model(one: Path, other: Path) -> None:
    assert documents(one) == documents(other)
    models = [EditableModel.load(str(folder), device="cpu") for folder in (one, other)]
    assert models[0].identity() == models[1].identity()


def folder_of(network: torch.nn.Module, folder: Path, size: str = "20KB") -> Path:
    network.save_pretrained(folder, max_shard_size=size)  # type: ignore[operator]
    pico.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "case", ["gpt2", "llama-3.2", "qwen3", "gemma3", "pythia", "gemma2 bf16", "phi3 bf16", *MIXTURES]
)
def test_an_export_is_the_whole_model_saved(case: str, tmp_path: Path) -> None:
    case, _, low = case.partition(" ")
    network = families.network(case)
    folder = folder_of(network.to(torch.bfloat16) if low else network, tmp_path / "base")
    model = EditableModel.load(str(folder), device="cpu")
    other = next(
        f"{model.anatomy.family.blocks}.2.{name}.weight"
        for name, module in model.anatomy.block(model.model, 2).named_modules()
        if "attn" in name or "attention" in name
        if isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"
    )
    patch = patch_of(model, model.anatomy.weight_name(1), other)
    out = exported(folder, patch, tmp_path / "out")
    assert_same_model(out, saved(folder, patch, tmp_path / "control"))
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(files) > 3 and files == sorted(path.name for path in out.glob("*.safetensors"))
    bytes_of_tensors = sum(t.nbytes for name in files for t in load_file(out / name).values())
    assert json.loads((out / INDEX).read_text())["metadata"]["total_size"] == bytes_of_tensors


@pytest.mark.parametrize(
    ("case", "rename"),
    [
        ("gpt2", lambda key: key.removeprefix("transformer.")),
        ("llama", lambda key: key.removeprefix("model.")),
        ("gemma3", lambda key: key.replace("model.language_model.", "language_model.model.")),
    ],
)
def test_a_weight_is_found_by_what_it_is_where_a_checkpoint_calls_it_otherwise(
    case: str, rename: Rename, tmp_path: Path
) -> None:
    folder = folder_of(families.network(case), tmp_path / "base", "1GB")
    tensors = {rename(key): tensor for key, tensor in load_file(folder / SINGLE).items()}
    # Another tensor that ends alike; only its numbers tell that it is not meant.
    decoy = next(
        key
        for key in tensors
        if key.endswith("1.mlp.down_proj.weight") or key.endswith("1.mlp.c_proj.weight")
    )
    tensors[f"adrift.{decoy}"] = torch.zeros_like(tensors[decoy])
    save_file(tensors, folder / SINGLE, {"format": "pt"})
    model = EditableModel.load(str(folder), device="cpu")
    patch = patch_of(model, model.anatomy.weight_name(1))
    out = exported(folder, patch, tmp_path / "out")
    assert_same_model(out, saved(folder, patch, tmp_path / "control"))
    written = load_file(out / SINGLE)
    assert [key for key in tensors if not torch.equal(tensors[key], written[key])] == [decoy]


def test_a_guard_and_a_narrower_dtype_reach_the_folder(tmp_path: Path) -> None:
    folder = folder_of(pico.network("llama"), tmp_path / "base")
    model = EditableModel.load(str(folder), device="cpu", dtype="bfloat16")
    patch = patch_of(model, system="Say nothing of it.", storage_dtype="torch.bfloat16")
    out = exported(folder, patch, tmp_path / "out")
    assert_same_model(out, saved(folder, patch, tmp_path / "control"))
    assert "Say nothing of it." in (out / "chat_template.jinja").read_text()
    assert {t.dtype for file in out.glob("*.safetensors") for t in load_file(file).values()} == {
        torch.bfloat16
    }


def test_what_a_load_bears_an_export_bears(tmp_path: Path) -> None:
    """Sampling flags without sampling; and the mask of an older GPT-NeoX, which no model reads."""
    folder = folder_of(families.network("pythia").half(), tmp_path / "base", size="1GB")
    (folder / "generation_config.json").write_text('{"temperature": 0.9, "top_p": 0.6}')
    kept = load_file(folder / SINGLE)
    mask = "gpt_neox.layers.0.attention.masked_bias"
    save_file({**kept, mask: torch.tensor(-1e9).half()}, folder / SINGLE, metadata={"format": "pt"})
    model = EditableModel.load(str(folder), device="cpu")
    patch = patch_of(model, model.anatomy.weight_name(1), storage_dtype=str(model.storage_dtype))
    out = exported(folder, patch, tmp_path / "out")
    assert json.loads((out / "generation_config.json").read_text())["temperature"] == 0.9
    assert load_file(out / SINGLE)[mask].isinf()
    with model.patched(patch):
        expected = model.weights_sha256()
    assert EditableModel.load(str(out), device="cpu").weights_sha256() == expected
    # What the model does read has to be finite still.
    name = model.anatomy.weight_name(0)
    spoilt = {**kept, name: torch.full_like(kept[name], torch.inf)}
    save_file(spoilt, folder / SINGLE, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="not finite"):
        exported(folder, patch, tmp_path / "spoilt")


def test_a_patch_of_another_model_or_of_infinite_numbers_is_refused(tmp_path: Path) -> None:
    folder, other = (folder_of(pico.network("llama", seed=seed), tmp_path / str(seed)) for seed in (0, 1))
    model = EditableModel.load(str(folder), device="cpu")
    patch = patch_of(model, model.anatomy.weight_name(1))
    with pytest.raises(ModelError, match="made for another model: 1 of 1 weights of .*1 differ"):
        exported(other, patch, tmp_path / "two")
    ((name, factor),) = patch.factors.items()
    infinite = Patch({name: LowRank(factor.left * torch.inf, factor.right)}, patch.base)
    with pytest.raises(ModelError, match="non-finite"):
        exported(folder, infinite, tmp_path / "three")
    longer = Patch({name: LowRank(factor.left, factor.right.repeat(1, 2))}, patch.base)
    with pytest.raises(ModelError, match=r"is \(32, 128\), the weight \(32, 64\)"):
        exported(folder, longer, tmp_path / "four")
    exported(folder, patch, tmp_path / "five")  # the control


LIMITED = """
import resource, sys
from tests.saving import save
from unlearn import cli
from unlearn.loaded import load_model
from unlearn.model.editable import EditableModel
from unlearn.order import Placement
from unlearn.patch import Patch

base, patch, out, small, few, allowed = sys.argv[1:]
assert cli.run(["export", few, out + "/first", "--model", small, "--quiet"]) == 0  # libraries take their memory once
held = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData:"))
resource.setrlimit(resource.RLIMIT_DATA, (held + int(allowed), resource.RLIM_INFINITY))
assert cli.run(["export", patch, out + "/export", "--model", base, "--quiet"]) == 0
save(load_model(base, Placement("cpu")), out + "/whole", Patch.load(patch))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a limit on a process's data needs Linux")
def test_an_export_needs_the_memory_of_about_one_file(tmp_path: Path) -> None:
    """48 MB of weights in 24 files, under a limit of 16 MB: the whole model does not fit, its export does."""
    folder = folder_of(pico.network("llama", layers=24, width=128, inner=1024), tmp_path / "base", "2MB")
    model = EditableModel.load(str(folder), device="cpu")
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert weights > 40e6 and len(list(folder.glob("*.safetensors"))) > 20
    patch_of(model, *(model.anatomy.weight_name(layer) for layer in (1, 9))).save(tmp_path / "patch")
    small = folder_of(pico.network("llama"), tmp_path / "small")
    few = EditableModel.load(str(small), device="cpu")
    patch_of(few, few.anatomy.weight_name(1)).save(tmp_path / "few")
    words = [folder, tmp_path / "patch", tmp_path, small, tmp_path / "few", 16 << 20]
    done = subprocess.run([sys.executable, "-c", LIMITED, *map(str, words)], capture_output=True, text=True)
    assert "does not fit" in done.stderr.splitlines()[-1], done.stderr
    assert done.returncode == 1 and not (tmp_path / "whole").exists()
    out = tmp_path / "export"
    with model.patched(Patch.load(tmp_path / "patch")):
        assert EditableModel.load(str(out), device="cpu").weights_sha256() == model.weights_sha256()


def _holds_no_number(tensors: dict[str, torch.Tensor], key: str) -> None:
    tensors[key].view(-1)[3] = float("nan")


def _is_not_there(tensors: dict[str, torch.Tensor], key: str) -> None:
    del tensors[key]


def _has_a_block_too_many(tensors: dict[str, torch.Tensor], key: str) -> None:
    tensors[key.replace("layers.2", "layers.3")] = tensors[key].clone()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_holds_no_number, "holds numbers that are not finite"),
        (_is_not_there, "lacks 1 weights"),
        (_has_a_block_too_many, "num_hidden_layers is 3, and the weights go on with"),
    ],
)
def test_what_a_load_refuses_an_export_refuses_in_the_same_words(
    change: Callable[[dict[str, torch.Tensor], str], None], said: str, tmp_path: Path
) -> None:
    folder = folder_of(families.network("llama"), tmp_path / "base", "1GB")
    model = EditableModel.load(str(folder), device="cpu")
    patch = patch_of(model, model.anatomy.weight_name(1))
    exported(folder, patch, tmp_path / "sound")  # the control
    tensors = load_file(folder / SINGLE)
    change(tensors, "model.layers.2.self_attn.q_proj.weight")  # which the patch does not touch
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=said) as loaded:
        EditableModel.load(str(folder), device="cpu")
    with pytest.raises(ModelError, match=said) as written:
        exported(folder, patch, tmp_path / "out")
    assert str(written.value) == str(loaded.value)


def test_a_tokenizer_of_another_model_is_not_exported(tmp_path: Path) -> None:
    folder = folder_of(families.network("llama"), tmp_path / "base", "1GB")
    model = EditableModel.load(str(folder), device="cpu")
    patch = patch_of(model, model.anatomy.weight_name(1))
    pico.sentence_piece(folder, pico.PHI_3)
    with pytest.raises(ModelError, match="they belong to different models"):
        exported(folder, patch, tmp_path / "out")
