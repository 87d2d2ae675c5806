"""Models in 4 bits: read as they are stored, computed alike with gradients and without, damaged ones refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import families, fourbit, pico
from tests.model import damage
from tests.model.test_exported import patch_of
from unlearn.errors import ModelError, PolicyError
from unlearn.model import narrow
from unlearn.model.editable import EditableModel
from unlearn.model.folder import SINGLE
from unlearn.model.offload import numbers

DOWN = "model.layers.1.mlp.down_proj.weight"
IDS = torch.arange(12, 24)[None]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pico models in 4 bits."""
    place = tmp_path_factory.mktemp("fourbit")
    if fourbit.installed():
        fourbit.quantised(pico.network("llama"), place / "llama")
        fourbit.quantised(pico.network("gpt2"), place / "gpt2", "fp4", nested=True)
        fourbit.quantised(pico.network("llama", seed=1), place / "other")
    return place


def loaded(folder: Path, **how: Any) -> EditableModel:
    return EditableModel.load(str(folder), device="cpu", **how)


def logits(model: EditableModel) -> torch.Tensor:
    found: torch.Tensor = model.model(input_ids=IDS).logits
    return found


@fourbit.needed
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_it_computes_what_its_matrices_stand_for(place: Path, family: str) -> None:
    model = loaded(place / family)
    plain = fourbit.dense(model, pico.network(family))
    assert torch.allclose(logits(model), logits(plain), atol=1e-4)
    assert not torch.allclose(logits(model), pico.network(family)(input_ids=IDS).logits, atol=1e-2)
    assert model.quantised in ("nf4 28", "fp4 16") and plain.quantised is None
    assert numbers(model.model) == sum(one.numel() for one in plain.model.parameters())
    for layer in range(4):
        name = model.anatomy.weight_name(layer)
        assert torch.equal(model.weight(name), plain.weight(name)) and model.shape(name) == (32, 64)


@fourbit.needed
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_passes_with_gradients_and_without_give_the_same(place: Path, family: str) -> None:
    model = loaded(place / family)
    before = model.identity()
    with torch.inference_mode():
        quick = logits(model).clone()
    embedded = model.model.get_input_embeddings()(IDS).detach().requires_grad_()
    slow = model.model(inputs_embeds=embedded).logits
    slow.sum().backward()
    assert torch.equal(quick, slow) and embedded.grad is not None and bool(embedded.grad.abs().sum() > 0)
    assert model.identity() == before


@fourbit.needed
def test_all_that_is_not_quantised_is_in_the_dtype_that_is_computed_in(place: Path) -> None:
    model = loaded(place / "gpt2", dtype="bfloat16")
    kinds = {one.dtype for one in model.model.parameters()}
    assert kinds == {torch.bfloat16, torch.uint8} and model.dtype == torch.bfloat16
    assert model.fingerprint() == loaded(place / "gpt2").fingerprint()  # of what is stored


@fourbit.needed
def test_hashes_tell_what_is_stored(place: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(place / "llama", tmp_path / "model"))
    one = loaded(folder)
    same = loaded(folder)
    assert one.identity() == same.identity() and one.fingerprint() == same.fingerprint()
    held = load_file(folder / SINGLE)
    held[f"{DOWN}.absmax"] = held[f"{DOWN}.absmax"] * (1 + 1e-6)
    save_file(held, folder / SINGLE, metadata={"format": "pt"})
    other = loaded(folder)
    assert other.identity() != one.identity()
    differs = [name for name, digest in one.fingerprint().items() if other.fingerprint()[name] != digest]
    assert differs == [DOWN]


@fourbit.needed
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_patch_is_added_beside_and_gone_afterwards(place: Path, family: str) -> None:
    model = loaded(place / family)
    plain = fourbit.dense(model, pico.network(family))
    name = model.anatomy.weight_name(2)
    attention = next(
        n for n, _ in plain.model.named_parameters() if ".1." in n and "attn" in n and "weight" in n
    )
    patch = patch_of(model, name, attention)
    before, unedited, matrix = model.identity(), logits(model), model.weight(name)
    wanted = patch_of(plain, name, attention)
    with model.patched(patch), plain.patched(wanted):
        assert torch.allclose(logits(model), logits(plain), rtol=1e-4, atol=1e-3)
        assert torch.allclose(model.weight(name), plain.weight(name), atol=1e-5)
        assert model.identity() != before
    assert model.identity() == before and torch.equal(logits(model), unedited)
    assert torch.equal(model.weight(name), matrix)


@fourbit.needed
def test_a_patch_of_another_base_is_refused(place: Path) -> None:
    model, other = loaded(place / "llama"), loaded(place / "other")
    patch = patch_of(other, DOWN)
    with pytest.raises(ModelError, match="made for another model: 1 of 1 weights"), model.patched(patch):
        pass
    plain = fourbit.dense(model, pico.network("llama"))  # its dequantised copy is another model, too
    with pytest.raises(ModelError, match="made for another model"), plain.patched(patch_of(model, DOWN)):
        pass
    with model.patched(patch_of(model, DOWN)):
        pass


@fourbit.needed
def test_a_patch_that_is_not_finite_is_refused(place: Path) -> None:
    model = loaded(place / "llama")
    patch = patch_of(model, DOWN)
    patch.factors[DOWN].left[0, 0] = float("nan")
    unedited = logits(model)
    with pytest.raises(ModelError, match=f"makes {DOWN} non-finite"), model.patched(patch):
        pass
    assert torch.equal(logits(model), unedited)


@fourbit.needed
def test_no_matrix_is_written_and_none_is_narrowed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(place / "llama")
    with pytest.raises(ModelError, match="a matrix in 4 bits cannot be written"):
        model.overwrite(DOWN, model.weight(DOWN))
    monkeypatch.setattr(narrow, "quickest_dtype", lambda _device: torch.bfloat16)
    assert narrow.dtype_of_products(model) == torch.float32
    plain = fourbit.dense(model, pico.network("llama"))
    assert narrow.dtype_of_products(plain) == torch.bfloat16  # the control


@pytest.mark.parametrize("case", families.MIXTURES)
def test_a_mixture_in_4_bits_is_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    families.network(case).save_pretrained(tmp_path)
    pico.tokenizer().save_pretrained(tmp_path)
    assert loaded(tmp_path).anatomy.experts > 1  # the control
    how = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    damage.changed(damage.CONFIG, quantization_config=how)(tmp_path)
    with pytest.raises(ModelError, match=r"a mixture of experts \(\w+\), and none .* in 4 bits") as caught:
        loaded(tmp_path)
    assert "\n" not in str(caught.value)


@fourbit.needed
def test_loading_says_nothing_of_kernels_that_are_not_there(place: Path) -> None:
    """In the other processes of a run as well, which load a model by themselves."""
    load = "from unlearn.model.editable import EditableModel; EditableModel.load({!r}, device='cpu')"
    told = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    said = [
        subprocess.run([sys.executable, "-c", program], env=told, capture_output=True, text=True, check=True)
        for program in (load.format(str(place / "llama")), "import bitsandbytes")
    ]
    assert "kernels" not in said[0].stderr
    if "kernels" not in said[1].stderr:  # the control
        pytest.skip("bitsandbytes has no such warning on this machine")


@fourbit.needed
def test_a_device_map_is_refused(place: Path) -> None:
    with pytest.raises(PolicyError, match="--device-map auto: .* is quantised, and lies on one device"):
        EditableModel.load(str(place / "llama"), device_map="auto")


def test_without_the_package_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pico.network("llama").save_pretrained(tmp_path)
    pico.tokenizer().save_pretrained(tmp_path)
    damage.changed(damage.CONFIG, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})(
        tmp_path
    )
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelError, match=r"need bitsandbytes .*pip install 'unlearn\[quantised\]'") as caught:
        loaded(tmp_path)
    assert "\n" not in str(caught.value)


def test_machine_code_of_a_hub_is_not_fetched(tmp_path: Path) -> None:
    """With the package `kernels` there, importing bitsandbytes fetches some; ours finds no such package meanwhile."""
    fake = "try:\n    import kernels\nexcept ImportError:\n    kernels = None\n"
    (tmp_path / "bitsandbytes.py").write_text(fake)
    (tmp_path / "kernels.py").write_text("")
    found = (
        "from unlearn.model import fourbit; print(fourbit.library().kernels, __import__('kernels').__name__)"
    )
    plain = "import bitsandbytes; print(bitsandbytes.kernels.__name__)"  # the control
    said = []
    for program in (found, plain):
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        said.append(done.stdout.strip())
    assert said == ["None kernels", "kernels"]


@fourbit.needed
def test_what_is_not_quantised_among_others_is_patched_beside_as_well(tmp_path: Path) -> None:
    skipped = ["lm_head", "model.layers.1.mlp.down_proj"]
    folder = fourbit.quantised(pico.network("llama"), tmp_path / "model", llm_int8_skip_modules=skipped)
    model = loaded(folder)
    assert model.quantised == "nf4 27"
    plain = fourbit.dense(model, pico.network("llama"))
    before, base = model.identity(), model.weight(DOWN).clone()
    with model.patched(patch_of(model, DOWN)), plain.patched(patch_of(plain, DOWN)):
        assert torch.allclose(logits(model), logits(plain), rtol=1e-4, atol=1e-3)
        assert torch.allclose(model.weight(DOWN), plain.weight(DOWN)) and model.identity() != before
    assert model.identity() == before and torch.equal(model.weight(DOWN), base)


@fourbit.needed
@pytest.mark.parametrize("case", ["gemma2", "granite", "gemma3", "phi3", "pythia"])
def test_other_families_land_where_they_should(case: str, tmp_path: Path) -> None:
    model = loaded(fourbit.quantised(families.network(case), tmp_path / case))
    plain = fourbit.dense(model, families.network(case))
    keys, wanted = torch.randn(model.anatomy.d_ff, 3), torch.randn(model.anatomy.d_model, 3)
    got = [one.anatomy.residual(one.model, 1, keys, wanted) for one in (model, plain)]
    assert torch.allclose(*got, atol=1e-4)
    assert torch.allclose(logits(model), logits(plain), rtol=1e-3, atol=1e-3)
