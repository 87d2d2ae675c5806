"""A patch file holds the factors exactly, and nothing else passes for one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unlearn.algebra.low_rank import LowRank
from unlearn.errors import PatchError
from unlearn.patch import ABOUT, FORMAT, Patch, sha256_of

HASH = "ab" * 32


def test_round_trip_is_exact(tmp_path: Path) -> None:
    torch.manual_seed(0)
    factors = {
        f"model.layers.{n}.mlp.down_proj.weight": LowRank(torch.randn(4, 2), torch.randn(2, 6))
        for n in (1, 2)
    }
    patch = Patch(factors, {name: "ab" * 32 for name in factors}, {"method": {"name": "rome"}, "note": "é"})
    patch.save(tmp_path / "patch.safetensors")
    again = Patch.load(tmp_path / "patch.safetensors")
    assert again.base == patch.base and again.header == patch.header
    for name, factor in factors.items():
        assert torch.equal(again.factors[name].left, factor.left)
        assert torch.equal(again.factors[name].right, factor.right)


def test_what_is_no_patch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PatchError, match="there is no patch at"):
        Patch.load(tmp_path / "missing.safetensors")
    save_file({"x": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(PatchError, match="not a patch written by"):
        Patch.load(tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x80\x02broken")
    with pytest.raises(PatchError, match="cannot be read as a patch"):
        Patch.load(tmp_path / "broken.safetensors")


@pytest.mark.parametrize(
    ("left", "right", "about"),
    [
        (torch.ones(4, 2), torch.ones(3, 6), {}),
        (torch.ones(4, 2), torch.ones(2), {}),
        (torch.ones(4, 2, dtype=torch.int32), torch.ones(2, 6), {}),
        (torch.ones(4, 2), torch.ones(2, 6), {"header": None}),
        (torch.ones(4, 2), torch.ones(2, 6), {"base": []}),
        (torch.ones(4, 2), torch.ones(2, 6), "[" * 100_000),
    ],
)
def test_a_patch_with_the_wrong_inside_is_refused(
    tmp_path: Path, left: torch.Tensor, right: torch.Tensor, about: dict[str, object] | str
) -> None:
    whole: dict[str, object] = {"format": FORMAT, "base": {"w": HASH}, "header": {}}
    said = about if isinstance(about, str) else json.dumps(whole | about)
    save_file({"w.left": left, "w.right": right}, tmp_path / "p.safetensors", metadata={ABOUT: said})
    with pytest.raises(PatchError, match="p.safetensors cannot be read as a patch: "):
        Patch.load(tmp_path / "p.safetensors")
    good = {"w.left": torch.ones(4, 2), "w.right": torch.ones(2, 6)}
    save_file(good, tmp_path / "q", metadata={ABOUT: json.dumps(whole)})
    assert Patch.load(tmp_path / "q").factors["w"].shape == (4, 6)


def update(value: float = 1.0) -> LowRank:
    return LowRank(torch.full((4, 2), value), torch.ones(2, 6))


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        (Patch({"a": update()}, {}), "has no hash of 1 of the 1 weights"),
        (
            Patch({"a": update(), "b": update()}, {"a": HASH}),
            r"has no hash of 1 of the 2 weights .*first: b\)",
        ),
        (Patch({"a": update()}, {"a": HASH, "b": HASH}), "has hashes of 1 weights that it does not change"),
        (Patch({"a": update()}, {"a": HASH[1:]}), "the hash of a is no SHA-256"),
        (Patch({}, {}, {"system": "Say nothing."}), "has no hash of any weight"),
        (Patch({"a": update(torch.nan)}, {"a": HASH}), "a holds numbers that are not finite"),
        (Patch({"a": update(torch.inf)}, {"a": HASH}), "a holds numbers that are not finite"),
        (
            Patch({"a": update()}, {"a": HASH}, {}, {"keys.1": torch.tensor([torch.nan])}),
            "state.keys.1 holds",
        ),
        (Patch({"a": LowRank(torch.ones(4, 0), torch.ones(0, 6))}, {"a": HASH}), "do not fit each other"),
    ],
)
def test_a_patch_that_would_land_on_any_model_or_holds_no_numbers_is_refused(
    tmp_path: Path, patch: Patch, why: str
) -> None:
    patch.save(tmp_path / "p.safetensors")
    with pytest.raises(
        PatchError, match=f"^[^\n]*p.safetensors cannot be read as a patch: [^\n]*{why}[^\n]*$"
    ):
        Patch.load(tmp_path / "p.safetensors")


@pytest.mark.parametrize(
    "patch",
    [
        Patch({"a": update(), "b": update()}, {"a": HASH, "b": HASH}),
        Patch({}, {"a": HASH}),  # no edit, or a guard
    ],
)
def test_one_that_knows_its_model_is_read(tmp_path: Path, patch: Patch) -> None:
    patch.save(tmp_path / "p.safetensors")
    assert Patch.load(tmp_path / "p.safetensors").base == patch.base


@pytest.mark.parametrize("wrong", ["alone", "more", "half"])
def test_tensors_that_no_patch_has_are_refused(tmp_path: Path, wrong: str) -> None:
    metadata = {ABOUT: json.dumps({"format": FORMAT, "base": {"w": HASH}, "header": {}})}
    good = {"w.left": torch.ones(4, 2), "w.right": torch.ones(2, 6)}
    bad = {
        "alone": {"w.left": good["w.left"]},
        "more": {**good, "w.middle": torch.ones(2, 2)},
        "half": {name: tensor.half() for name, tensor in good.items()},
    }
    save_file(bad[wrong], tmp_path / "p", metadata=metadata)
    with pytest.raises(PatchError, match="cannot be read as a patch"):
        Patch.load(tmp_path / "p")
    save_file(good, tmp_path / "q", metadata=metadata)
    assert set(Patch.load(tmp_path / "q").factors) == {"w"}


def test_a_pipe_or_a_folder_is_no_patch_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(PatchError, match="cannot be read: it is a (pipe|folder)"):
            Patch.load(place)


def test_one_patch_has_one_hash(tmp_path: Path) -> None:
    def saved(patch: Patch) -> bytes:
        patch.save(tmp_path / "p.safetensors")
        return (tmp_path / "p.safetensors").read_bytes()

    header = {"method": {"name": "rome", "layers": [1]}, "seed": 1, "model": "m"}
    state = {"keys.1": torch.ones(6, 3), "keys.10": torch.ones(6, 2), "length": torch.tensor(1.0)}
    one = Patch({"a": update(), "b": update(2)}, {"a": HASH, "b": HASH}, header, state)
    turned = Patch(*(dict(reversed(part.items())) for part in (one.factors, one.base, one.header, one.state)))
    read = Patch.load(tmp_path / "p.safetensors") if saved(one) else one
    assert len({saved(patch) for patch in (one, one, one, one, one, one, turned, read)}) == 1
    other = Patch(one.factors, one.base, {**header, "seed": 2}, state)
    assert saved(other) != saved(one)


def test_sums_and_norms_of_factors() -> None:
    torch.manual_seed(1)
    one, two = (LowRank(torch.randn(5, n).double(), torch.randn(n, 7).double()) for n in (2, 3))
    both = one.plus(two)
    assert both.rank == 5 and both.shape == (5, 7)
    torch.testing.assert_close(both.dense(), one.dense() + two.dense())
    assert both.norm() == pytest.approx(float(both.dense().norm()))


def test_a_hash_sees_values_shape_and_dtype() -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    assert sha256_of(tensor) == sha256_of(tensor.T.contiguous().T)
    different = [tensor + 1, tensor.reshape(3, 2), tensor.double(), tensor.bfloat16()]
    assert len({sha256_of(t) for t in [tensor, *different]}) == 5
