"""Second moments by block: what a dense matrix with the same blocks gives, and what they promise for all of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import reference
from unlearn.algebra.blocks import BlockSpectrum, spectrum_of
from unlearn.algebra.moments import Moments, Spectrum, Whitener, energy

EXPERTS, WIDTH, CHOSEN = 4, 6, 2


def keys_of(tokens: int = 200, seed: int = 0) -> Tensor:
    """Sparse long keys, (tokens, E w): two blocks each, some experts chosen far more often than others."""
    torch.manual_seed(seed)
    odds = torch.tensor([8.0, 4.0, 2.0, 1.0]).expand(tokens, EXPERTS)
    mask = torch.zeros(tokens, EXPERTS).scatter(1, odds.multinomial(CHOSEN), 1.0)
    keys = torch.randn(tokens, EXPERTS, WIDTH) * torch.logspace(0, -2, WIDTH)
    return (mask[:, :, None] * keys).flatten(1).double()


def blocks_of(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The whole second moment, and the dense matrix of its diagonal blocks."""
    whole = keys.T @ keys / len(keys)
    mask = torch.block_diag(*[torch.ones(WIDTH, WIDTH)] * EXPERTS).double()
    return whole, whole * mask


def test_the_moments_are_the_diagonal_blocks() -> None:
    keys = keys_of()
    moments = Moments(EXPERTS * WIDTH, blocks=EXPERTS)
    for piece in keys.split(23):
        moments.update(piece)
    whole, dense = blocks_of(keys)
    assert moments.count == len(keys) and moments.second.shape == (EXPERTS, WIDTH, WIDTH)
    torch.testing.assert_close(torch.block_diag(*moments.second), dense, rtol=1e-12, atol=1e-14)
    assert (
        float((whole - dense).norm() / whole.norm()) > 0.01
    )  # the control: there is something between experts


@pytest.mark.parametrize("kept", [0, 1, 7, 13, 24])
def test_projector_and_whitener_are_the_dense_ones(kept: int) -> None:
    keys = keys_of()
    _, dense = blocks_of(keys)
    seconds = torch.stack([dense[at : at + WIDTH, at : at + WIDTH] for at in range(0, len(dense), WIDTH)])
    spectrum, plain = spectrum_of(seconds), Spectrum.of(dense)
    assert isinstance(spectrum, BlockSpectrum)
    torch.testing.assert_close(spectrum.values, plain.values)
    assert spectrum.kept_by_energy(0.9) == plain.kept_by_energy(0.9)
    columns = torch.randn(len(dense), 5, dtype=torch.float64)
    projector = spectrum.null_space(kept)
    torch.testing.assert_close(projector.apply(columns), reference.projector(dense, kept) @ columns)
    assert projector.rank == len(dense) - kept == spectrum.unused(kept).rank
    for shift in (0.0, 0.3):
        expected = Whitener(plain, shift=shift).apply(columns)
        torch.testing.assert_close(spectrum.whitened(shift).apply(columns), expected)


def test_directions_are_coordinates_and_back() -> None:
    keys = keys_of()
    _, dense = blocks_of(keys)
    seconds = torch.stack([dense[at : at + WIDTH, at : at + WIDTH] for at in range(0, len(dense), WIDTH)])
    found = BlockSpectrum.of(seconds).unused(9)
    basis = torch.block_diag(*found.blocks)
    rows, coordinates = torch.randn(3, len(dense)).double(), torch.randn(3, found.rank).double()
    torch.testing.assert_close(found.inside(rows), rows @ basis)
    torch.testing.assert_close(found.outside(coordinates), coordinates @ basis.T)
    front = keys[:2].T
    free = found.orthogonal_to(front)
    added = free.outside(torch.randn(3, free.rank).double())
    assert (added @ front).norm() < 1e-12 * added.norm() < (found.outside(coordinates) @ front).norm()
    # An expert that the front was not given loses no direction.
    asked = front.unflatten(0, (EXPERTS, WIDTH)).abs().sum(1).count_nonzero(1).tolist()
    lost = [a.shape[1] - b.shape[1] for a, b in zip(found.blocks, free.blocks, strict=True)]
    assert lost == [min(n, block.shape[1]) for n, block in zip(asked, found.blocks, strict=True)]
    assert 0 in lost or min(asked) > 0


def test_what_the_blocks_leave_alone_the_whole_leaves_alone() -> None:
    """``tr(delta C delta^T)`` is at most as many times that of the blocks as a token has experts."""
    keys = keys_of()
    whole, dense = blocks_of(keys)
    seconds = torch.stack([dense[at : at + WIDTH, at : at + WIDTH] for at in range(0, len(dense), WIDTH)])
    ratios = []
    for seed in range(50):
        torch.manual_seed(seed)
        delta = torch.randn(3, len(dense)).double()
        torch.testing.assert_close(energy(seconds, delta), energy(dense, delta))
        ratios.append(energy(whole, delta) / energy(seconds, delta))
    together = torch.linalg.eigvals(torch.linalg.solve(dense, whole)).real.max()
    assert max(ratios) <= float(together) <= CHOSEN + 1e-9
    assert float(together) > 1.01  # without the factor it would not hold
