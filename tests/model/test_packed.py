"""Checkpoints in 4 bits that are damaged, or ask for what nobody has tried: refused in one sentence each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import fourbit, pico
from tests.model import damage
from unlearn.errors import ModelError
from unlearn.model.editable import EditableModel
from unlearn.model.folder import SINGLE

pytestmark = fourbit.needed

DOWN = "model.layers.1.mlp.down_proj.weight"
ABOUT = f"{DOWN}.quant_state.bitsandbytes__nf4"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pico models in 4 bits."""
    place = tmp_path_factory.mktemp("packed")
    fourbit.quantised(pico.network("llama"), place / "llama")
    fourbit.quantised(pico.network("llama", width=128, inner=256), place / "nested", nested=True)
    return place


def loaded(folder: Path) -> EditableModel:
    return EditableModel.load(str(folder), device="cpu")


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
        r"down_proj.weight should be \(32, 64\) in 4 bits, and it is not",
    ),
    "more layers": (damage.changed(damage.CONFIG, num_hidden_layers=5), "lacks 9 weights"),
    "a wider model": (damage.changed(damage.CONFIG, hidden_size=64, head_dim=8), "has the shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_damaged_one_is_refused_in_one_sentence(case: str, place: Path, tmp_path: Path) -> None:
    harm, pattern = BROKEN[case]
    folder = Path(shutil.copytree(place / "llama", tmp_path / "model"))
    harm(folder)
    with pytest.raises(ModelError, match=pattern) as caught:
        loaded(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("key", ["absmax", "nested_absmax", "nested_quant_map"])
def test_scales_of_scales_have_to_fit_as_well(key: str, place: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(place / "nested", tmp_path / "model"))
    assert loaded(folder).quantised == "nf4 28"
    cut(f"{DOWN}.{key}")(folder)
    with pytest.raises(ModelError, match=f"for {key}, not"):
        loaded(folder)


def test_a_quantised_head_is_refused(tmp_path: Path) -> None:
    folder = fourbit.quantised(pico.network("llama"), tmp_path / "model", llm_int8_skip_modules=["nothing"])
    with pytest.raises(ModelError, match="its output embedding is quantised"):
        loaded(folder)
