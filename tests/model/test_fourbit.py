"""Models in 4 bits: read as they are stored, computed alike with gradients and without, damaged ones refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import families, fourbit, pico
from tests.model import damage
from tests.model.test_exported import patch_of
from unlearn.errors import ModelError, PolicyError
from unlearn.model import fourbit as packed_layers
from unlearn.model.editable import EditableModel
from unlearn.model.folder import SINGLE
from unlearn.model.offload import numbers

DOWN = "model.layers.1.mlp.down_proj.weight"
ABOUT = f"{DOWN}.quant_state.bitsandbytes__nf4"
IDS = torch.arange(12, 24)[None]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pico models in 4 bits."""
    place = tmp_path_factory.mktemp("fourbit")
    if fourbit.installed():
        fourbit.quantised(pico.network("llama"), place / "llama")
        fourbit.quantised(pico.network("gpt2"), place / "gpt2", "fp4", nested=True)
        fourbit.quantised(pico.network("llama", seed=1), place / "other")
        fourbit.quantised(pico.network("llama", width=128, inner=256), place / "nested", nested=True)
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
    changed(lambda held: held[f"{DOWN}.absmax"][0].mul_(1 + 1e-6))(folder)
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


def test_machine_code_of_a_hub_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package `kernels` there, importing bitsandbytes fetches some; ours finds no such package meanwhile."""
    (tmp_path / "bitsandbytes.py").write_text(
        "try:\n    import kernels\nexcept ImportError:\n    kernels = None\n"
    )
    (tmp_path / "kernels.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] in ("bitsandbytes", "kernels")]:
        monkeypatch.delitem(sys.modules, name)
    assert packed_layers.library().kernels is None
    monkeypatch.delitem(sys.modules, "bitsandbytes")
    import bitsandbytes
    import kernels

    assert bitsandbytes.kernels is kernels  # the control: otherwise it is found


def changed(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Change tensors of a folder, as `damage.tensors`, in clones."""

    def harm(folder: Path) -> None:
        held = {key: tensor.clone() for key, tensor in load_file(folder / SINGLE).items()}
        change(held)
        save_file(held, folder / SINGLE, metadata={"format": "pt"})

    return harm


def said(**changes: object) -> Callable[[Path], None]:
    """Change the JSON object of a matrix."""

    def change(held: dict[str, torch.Tensor]) -> None:
        about = {**json.loads(bytes(held[ABOUT].tolist())), **changes}
        held[ABOUT] = torch.tensor(list(json.dumps(about).encode()), dtype=torch.uint8)

    return changed(change)


def asked(**changes: object) -> Callable[[Path], None]:
    """Change the quantisation that a configuration describes."""

    def harm(folder: Path) -> None:
        file = folder / damage.CONFIG
        about = json.loads(file.read_text())
        about["quantization_config"] |= changes
        file.write_text(json.dumps(about))

    return harm


def cut(key: str) -> Callable[[Path], None]:
    return changed(lambda held: held.update({key: held[key][:-1].clone()}))


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "another method": (asked(quant_method="gptq"), r"quantization_config \(gptq\): weights that are"),
    "8 bits": (asked(load_in_8bit=True, load_in_4bit=False), r"quantization_config \(bitsandbytes\): weights"),
    "another type": (asked(bnb_4bit_quant_type="int4"), "bnb_4bit_quant_type is 'int4'; .* should be fp4 or nf4"),
    "another storage": (asked(bnb_4bit_quant_storage="bfloat16"), "bnb_4bit_quant_storage is 'bfloat16'"),
    "offloading": (asked(llm_int8_enable_fp32_cpu_offload=True), "llm_int8_enable_fp32_cpu_offload is True"),
    "skipping no list": (asked(llm_int8_skip_modules=7), "llm_int8_skip_modules should be a list"),
    "skipping what is quantised": (asked(llm_int8_skip_modules=["down_proj"]), "mismatched_sizes"),
    "no quantisation": (damage.changed(damage.CONFIG, quantization_config=None), "is stored as U8"),
    "one inside": (
        damage.changed(damage.CONFIG, text_config={"quantization_config": {"quant_method": "x"}}),
        r"quantization_config \(x\): weights that are",
    ),
    "too few scales": (cut(f"{DOWN}.absmax"), r"with \('F32', 31\) for absmax, not \('F32', 32\)"),
    "no scales": (changed(lambda held: held.pop(f"{DOWN}.absmax")), "with nothing for absmax"),
    "too few codes": (cut(DOWN), "with 1,023 bytes of codes for 2,048 numbers"),
    "codes that are none": (
        changed(lambda held: held.update({DOWN: held[DOWN].float()})),
        f"{DOWN} is stored in 4 bits with",
    ),
    "a short table": (cut(f"{DOWN}.quant_map"), r"with \('F32', 15\) for quant_map"),
    "no matrix": (changed(lambda held: held.pop(DOWN)), f"{ABOUT} belongs to no matrix"),
    "not said": (changed(lambda held: held.pop(ABOUT)), f"{DOWN} is stored as U8"),
    "no JSON": (changed(lambda held: held[ABOUT].fill_(ord("{"))), "model.safetensors"),
    "a list": (
        changed(lambda held: held.update({ABOUT: torch.tensor(list(b"[1]"), dtype=torch.uint8)})),
        "should hold one JSON object",
    ),
    "a larger shape": (said(shape=[64, 64]), "with 1,024 bytes of codes for 4,096 numbers"),
    "a turned shape": (said(shape=[64, 32]), f"{DOWN} has the shape \\(64, 32\\)"),
    "a shape that is none": (said(shape=[2048]), "without a shape"),
    "negative sizes": (said(shape=[-32, -64]), "without a shape"),
    "blocks of another length": (said(blocksize=128), r"for absmax, not \('F32', 16\)"),
    "blocks of no length": (said(blocksize=0), "without a shape, or blocks of a length"),
    "another kind inside": (said(quant_type="fp4"), "of another format than its name says"),
    "a dtype of torch that is none": (said(dtype="load"), "of another format than its name says"),
    "NaN": (changed(lambda held: held[f"{DOWN}.absmax"].fill_(float("nan"))), f"{DOWN} holds numbers"),
    "a plain matrix among them": (
        changed(
            lambda held: [
                held.pop(key) for key in [*held] if key.startswith(f"{DOWN}.")
            ]
            and held.update({DOWN: torch.zeros(32, 64)})
        ),
        "down_proj.weight should be in 4 bits by the configuration, and is not",
    ),
    "more layers": (damage.changed(damage.CONFIG, num_hidden_layers=5), "lacks 9 weights"),
    "a wider model": (damage.changed(damage.CONFIG, hidden_size=64, head_dim=8), "has the shape"),
}  # fmt: skip


@fourbit.needed
@pytest.mark.parametrize("case", BROKEN)
def test_a_damaged_one_is_refused_in_one_sentence(case: str, place: Path, tmp_path: Path) -> None:
    harm, pattern = BROKEN[case]
    folder = Path(shutil.copytree(place / "llama", tmp_path / "model"))
    harm(folder)
    with pytest.raises(ModelError, match=pattern) as caught:
        loaded(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@fourbit.needed
@pytest.mark.parametrize("key", ["absmax", "nested_absmax", "nested_quant_map"])
def test_scales_of_scales_have_to_fit_as_well(key: str, place: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(place / "nested", tmp_path / "model"))
    assert loaded(folder).quantised == "nf4 28"
    cut(f"{DOWN}.{key}")(folder)
    with pytest.raises(ModelError, match=f"for {key}, not"):
        loaded(folder)


@fourbit.needed
def test_a_quantised_head_is_refused(tmp_path: Path) -> None:
    folder = fourbit.quantised(pico.network("llama"), tmp_path / "model", llm_int8_skip_modules=["nothing"])
    with pytest.raises(ModelError, match="its output embedding is quantised"):
        loaded(folder)


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
