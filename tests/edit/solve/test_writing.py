"""Which kept keys can be told from a request's."""

from __future__ import annotations

import pytest
import torch

from unlearn.edit.solve import writing


def test_a_kept_key_that_cannot_be_told_from_a_requests_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    keys, others = torch.randn(16, 4), torch.randn(16, 9)
    # The same direction at any length is the same key; a right angle away from it is another one.
    same = torch.stack([3 * keys[:, 1], 0.01 * keys[:, 2]], 1)
    kept = torch.cat([others[:, :5], same, others[:, 5:]], 1)
    found = writing.distinct(kept, keys)
    assert torch.equal(found, others)
    monkeypatch.setattr(writing, "AT_ONCE", 4)
    assert torch.equal(writing.distinct(kept, keys), found)
    monkeypatch.setattr(writing, "SAME_KEY", 1.1)
    assert torch.equal(writing.distinct(kept, keys), kept)
    assert writing.distinct(kept[:, :0], keys).shape == (16, 0)
