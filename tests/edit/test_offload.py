"""One model over several places, by a device map: the same edit, the same audit, and what cannot be done is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import families, pico
from tests.device_maps import map_of
from tests.edit import cases
from tests.edit.test_pipeline import METHOD_SETTINGS
from unlearn.edit import pipeline
from unlearn.edit.allowed import allowed
from unlearn.errors import ModelError, PolicyError
from unlearn.model import narrow
from unlearn.model.editable import EditableModel
from unlearn.model.offload import held
from unlearn.patch import Patch
from unlearn.policy import StatisticsSpec
from unlearn.policy.settings_trained import FineTune, Lora, NullSpaceTuning, Rmu

SETTINGS: dict[str, Any] = {
    "alphaedit": METHOD_SETTINGS["alphaedit"].model_copy(update={"hard_negatives": 200}),
    "memit_seq": METHOD_SETTINGS["memit_seq"],
    "null_space_tuning": NullSpaceTuning(layers=(1, 2), steps=3),
    "ft_m": FineTune(layer=1, steps=3),
    "rmu": Rmu(steps=3),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pico models in folders, each with a map that puts most blocks on disk, and a corpus."""
    place = tmp_path_factory.mktemp("offload")
    for family in ("llama", "gpt2"):
        pico.network(family).save_pretrained(place / family)
        pico.tokenizer().save_pretrained(place / family)
        plain = EditableModel.load(str(place / family), device="cpu")
        map_of(plain, place / f"{family}.json", {1: "disk", 2: "disk", 3: "disk"})
    lines = "\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES)
    (place / "text.txt").write_text(lines, encoding="utf-8")
    return place


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is offloaded is never narrowed; here what is not must not be, either."""
    monkeypatch.setattr(narrow, "quickest_dtype", lambda _device: torch.float32)


def edited(place: Path, family: str, method: str, device_map: str | None) -> tuple[EditableModel, Patch]:
    device = "cpu" if device_map is None else "auto"
    model = EditableModel.load(str(place / family), device=device, device_map=device_map)
    corpus = StatisticsSpec(corpus=str(place / "text.txt"), tokens=2000)
    before = model.identity()
    patch = pipeline.edit(model, cases.requests(statistics=corpus, method=SETTINGS[method]))
    assert model.identity() == before
    return model, patch


@pytest.mark.parametrize(
    ("family", "method"), [("gpt2", "alphaedit"), *(("llama", method) for method in SETTINGS)]
)
def test_a_patch_made_with_blocks_on_disk_is_that_of_one_device(
    place: Path, family: str, method: str
) -> None:
    model, spread = edited(place, family, method, str(place / f"{family}.json"))
    plain, whole = edited(place, family, method, None)
    assert model.offloaded and not plain.offloaded
    assert spread.base == whole.base and spread.factors.keys() == whole.factors.keys() and whole.factors
    for name, delta in whole.factors.items():
        difference = spread.factors[name].dense() - delta.dense()
        assert float(difference.norm() / delta.dense().norm()) < 1e-5
    row = torch.tensor([[3, 9, 4, 7]])
    unedited = plain.model(row).logits
    with model.patched(whole), plain.patched(whole):
        assert model.weights_sha256() == plain.weights_sha256()
        assert torch.equal(model.model(row).logits, plain.model(row).logits)
        assert not torch.equal(plain.model(row).logits, unedited)
    assert torch.equal(model.model(row).logits, unedited)


def test_what_is_kept_in_memory_only_while_it_is_patched(place: Path) -> None:
    model = EditableModel.load(str(place / "llama"), device_map=str(place / "llama.json"))
    name = model.anatomy.weight_name(2)
    module = model.anatomy.down(model.model, 2)
    before = model.weight(name).clone()
    files = {path: path.read_bytes() for path in (place / "llama").glob("*.safetensors")}
    patch = edited(place, "llama", "memit_seq", None)[1]
    with model.patched(patch):
        assert not torch.equal(held(module, "weight"), before) and module.weight.is_meta
    assert torch.equal(held(module, "weight"), before)
    assert files == {path: path.read_bytes() for path in files}


def test_what_offloading_does_not_bear_is_said_in_a_sentence(place: Path) -> None:
    from unlearn.audit.attacks.scene import restored
    from unlearn.errors import AuditError

    model = EditableModel.load(str(place / "llama"), device_map=str(place / "llama.json"))
    with pytest.raises(AuditError, match="changes weights in place, and some of this model's are on disk"):
        with restored(model):
            pass
    plain = EditableModel.load(str(place / "llama"), device="cpu")
    with pytest.raises(PolicyError, match="lora trains factors beside the weights, and some .* offloaded"):
        allowed(model, cases.policy(method=Lora()), None)
    allowed(plain, cases.policy(method=Lora()), None)  # the control
    with restored(plain):
        pass


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        (
            {"model.embed_tokens": "disk"},
            ModelError,
            "model.embed_tokens is to be offloaded, and only blocks",
        ),
        ({"model.norm": None}, ModelError, "does not say where model.norm.weight goes, and 0 others"),
        ({"model.layers.9": "cpu"}, ModelError, "this model has no module 'model.layers.9'"),
        ({"model.layers.1": "tape"}, PolicyError, "a device map is a JSON object"),
        ({"model.layers.1": 77}, ModelError, "this machine has no CUDA device 77"),
    ],
)
def test_a_wrong_map_is_refused(
    place: Path, tmp_path: Path, changes: dict[str, Any], kind: type[Exception], said: str
) -> None:
    wanted = {**json.loads((place / "llama.json").read_text()), **changes}
    file = tmp_path / "map.json"
    file.write_text(json.dumps({name: where for name, where in wanted.items() if where is not None}))
    with pytest.raises(kind, match=said) as caught:
        EditableModel.load(str(place / "llama"), device_map=str(file))
    assert "\n" not in str(caught.value)


def test_a_device_and_a_map_exclude_each_other(place: Path) -> None:
    with pytest.raises(PolicyError, match="--device cpu and --device-map auto: give one of the two"):
        EditableModel.load(str(place / "llama"), device="cpu", device_map="auto")


def test_auto_puts_a_model_that_fits_where_it_fits(place: Path) -> None:
    model = EditableModel.load(str(place / "llama"), device_map="auto")
    assert not model.offloaded
    assert model.identity() == EditableModel.load(str(place / "llama"), device="cpu").identity()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("method", SETTINGS)
def test_a_patch_made_on_two_gpus_is_that_of_one(place: Path, tmp_path: Path, method: str) -> None:
    plain = EditableModel.load(str(place / "llama"), device="cuda:0")
    file = map_of(plain, tmp_path / "map.json", {2: 1, 3: 1}, main=0)
    spread = edited(place, "llama", method, str(file))[1]
    whole = edited(place, "llama", method, None)[1]
    for name, delta in whole.factors.items():
        difference = spread.factors[name].dense().cpu() - delta.dense()
        assert float(difference.norm() / delta.dense().norm()) < 1e-5


def test_the_kept_families_are_computed_alike(tmp_path: Path) -> None:
    """Families whose norms, multipliers and windows are read apart from a pass."""
    for case in ("gemma2", "granite", "phi"):
        families.network(case).save_pretrained(tmp_path / case)
        pico.tokenizer().save_pretrained(tmp_path / case)
        plain = EditableModel.load(str(tmp_path / case), device="cpu")
        file = map_of(plain, tmp_path / "map.json", {1: "disk"})
        spread = EditableModel.load(str(tmp_path / case), device_map=str(file))
        keys, wanted = torch.randn(plain.anatomy.d_ff, 3), torch.randn(plain.anatomy.d_model, 3)
        got = [model.anatomy.residual(model.model, 1, keys, wanted) for model in (plain, spread)]
        assert torch.equal(*got) and spread.model.config.model_type == plain.model.config.model_type
