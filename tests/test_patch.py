"""A patch file holds the factors exactly, and nothing else passes for one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unlearn.algebra.low_rank import LowRank
from unlearn.errors import PatchError
from unlearn.patch import Patch, sha256_of


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
        (torch.ones(4, 2), torch.ones(2, 6), {"header": "null"}),
        (torch.ones(4, 2), torch.ones(2, 6), {"base": "[]"}),
        (torch.ones(4, 2), torch.ones(2, 6), {"header": "[" * 100_000}),
    ],
)
def test_a_patch_with_the_wrong_inside_is_refused(
    tmp_path: Path, left: torch.Tensor, right: torch.Tensor, about: dict[str, str]
) -> None:
    metadata = {"format": "unlearn-patch-1", "base": "{}", "header": "{}"}
    save_file({"w.left": left, "w.right": right}, tmp_path / "p.safetensors", metadata=metadata | about)
    with pytest.raises(PatchError, match="p.safetensors cannot be read as a patch: "):
        Patch.load(tmp_path / "p.safetensors")
    save_file({"w.left": torch.ones(4, 2), "w.right": torch.ones(2, 6)}, tmp_path / "q", metadata=metadata)
    assert Patch.load(tmp_path / "q").factors["w"].shape == (4, 6)


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
