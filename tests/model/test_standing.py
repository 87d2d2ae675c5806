"""A model is shared while the others can have it as it stands, and no longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from torch import nn

from tests import fourbit as four
from tests import pico
from tests.files import model_folder
from tests.three import three
from unlearn.algebra.low_rank import LowRank
from unlearn.audit.attacks.rounding import INT4, round_blocks
from unlearn.audit.attacks.scene import restored
from unlearn.audit.harness import _checked
from unlearn.model import continuing, fourbit, generation, scoring
from unlearn.model.adapters import dense
from unlearn.model.continuing import Continuing
from unlearn.model.editable import EditableModel
from unlearn.model.factors import lora
from unlearn.model.forward import changed
from unlearn.model.generation import Decoding
from unlearn.model.placing import Origin
from unlearn.model.scoring import Rating, scored
from unlearn.model.standing import Copy, Likeness, Standing
from unlearn.patch import Patch
from unlearn.sums import Parted, Seat

ROWS = [[3 + (7 * i * j) % 80 for j in range(1, 2 + i % 5)] for i in range(20)]
WAYS = (Decoding(5), Decoding(4, samples=3, temperature=1.0, seed=2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(model_folder(tmp_path_factory.mktemp("standing") / "model"))


def patch_of(model: EditableModel, size: float, layers: tuple[int, ...] = (1, 2)) -> Patch:
    names = [model.anatomy.weight_name(layer) for layer in layers]
    generator = torch.Generator().manual_seed(int(100 * size))
    factors = {}
    for name in names:
        rows, columns = model.shape(name)
        drawn = torch.randn(2, rows + columns, generator=generator)
        factors[name] = LowRank(size * drawn[:, :rows].T, drawn[:, rows:])
    return Patch(factors, model.fingerprint(names))


def said(model: EditableModel) -> list[object]:
    rated = [((*row, *ROWS[i - 1][:2]), min(2, len(ROWS[i - 1]))) for i, row in enumerate(ROWS)]
    return [*(model._continued(ROWS, how) for how in WAYS), scored(model, rated)]


def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "MOST", 6)
    monkeypatch.setattr(scoring, "token_budget", lambda _: 16)


def test_three_say_and_rate_what_one_does_whatever_patch_the_model_is_under(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_batches(monkeypatch)
    alone = EditableModel.load(folder, device="cpu")
    patches = [patch_of(alone, 0.1), patch_of(alone, 0.2, layers=(0,))]
    expected = [said(alone)]
    for patch in patches:
        with alone.patched(patch):
            expected.append(said(alone))
    assert expected[0] != expected[1] != expected[2]  # the control: another model says something else
    tasks = three(monkeypatch, continuing, scoring)
    model = EditableModel.load(folder, device="cpu")
    assert said(model) == expected[0]
    for patch, wanted in [(patches[0], expected[1])] * 2 + [(patches[1], expected[2])]:
        with model.patched(patch):
            assert said(model) == wanted
        assert said(model) == expected[0]
    assert len(tasks) == 7 * 3
    standings = [task.standing for task in tasks if isinstance(task, Continuing | Rating)]
    told = [at for at, standing in enumerate(standings) if standing.told is not None]
    assert told == [3, 15]  # each patch once
    assert [standing.patch is not None for standing in standings[::3]] == [bool(i % 2) for i in range(7)]


def test_every_process_makes_a_share_of_its_own(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch)
    tasks = three(monkeypatch, continuing, scoring)
    said(EditableModel.load(folder, device="cpu"))
    kept: dict[object, object] = {}
    for task in tasks:
        shares = [task.share(Seat(number, 3), kept)[0] != 0 for number in range(3)]
        rows = [set(share.flatten(1).any(1).nonzero()[:, 0].tolist()) for share in shares]
        assert all(rows) and len(set.union(*rows)) == sum(map(len, rows)) == len(ROWS)
    assert len(kept) == 1  # the model is loaded once


def test_one_batch_is_not_worth_a_task(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = three(monkeypatch, continuing, scoring)
    said(EditableModel.load(folder, device="cpu"))
    assert tasks == []


@contextmanager
def written(model: EditableModel) -> Iterator[None]:
    with torch.no_grad():
        model.weight(model.anatomy.weight_name(0))[0, 0] += 1
    yield


@contextmanager
def exchanged(model: EditableModel) -> Iterator[None]:
    down = model.anatomy.down(model.model, 0)
    down.weight = nn.Parameter(down.weight.detach().clone(), requires_grad=False)
    yield


@contextmanager
def rounded(model: EditableModel) -> Iterator[None]:
    round_blocks(model, INT4)
    yield


def names(model: EditableModel) -> list[str]:
    return [model.anatomy.weight_name(1)]


Change = Callable[[EditableModel], AbstractContextManager[object]]
PASSING: dict[str, Change] = {
    "a hook": lambda model: changed(model.anatomy.block(model.model, 1), lambda stream: 2 * stream),
    "an adapter": lambda model: dense(model, names(model)),
    "peft": lambda model: lora(model, names(model), rank=2, seed=0),
    "narrow products": lambda _: torch.autocast("cpu", torch.bfloat16),
}
STAYING: dict[str, Change] = {"a number": written, "a weight": exchanged, "all of them": rounded}


@pytest.mark.parametrize("what", [*PASSING, *STAYING])
@pytest.mark.parametrize("patched", [False, True])
def test_what_the_others_cannot_follow_is_not_shared(
    folder: str, monkeypatch: pytest.MonkeyPatch, what: str, patched: bool
) -> None:
    small_batches(monkeypatch)
    tasks = three(monkeypatch, continuing, scoring)
    model = EditableModel.load(folder, device="cpu")
    patch = patch_of(model, 0.1)

    def tried(change: Change) -> None:
        with model.changing(), change(model):
            assert model.standing() is None
            said(model)
            assert tasks == []

    def whole() -> None:
        if what in PASSING:
            tried(PASSING[what])
        else:
            with restored(model):
                tried(STAYING[what])
        assert model.standing() is not None  # put back

    if patched:
        with model.patched(patch):
            whole()
    else:
        whole()


def test_a_model_that_was_written_for_good_is_never_shared_again(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    three(monkeypatch, continuing)
    model = EditableModel.load(folder, device="cpu")
    patch = patch_of(model, 0.1, layers=(2,))
    with written(model), model.patched(patch):
        assert model.standing() is None
    assert model.standing() is None


def test_a_hook_that_only_looks_hinders_nobody(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval's tasks run under one that refuses logits which are not finite."""
    three(monkeypatch, continuing)
    model = EditableModel.load(folder, device="cpu")
    with model.patched(patch_of(model, 0.1)):
        under = model.standing()
        with _checked(model):
            found = model.standing()
        assert under is not None and found is not None and found.patch == under.patch is not None
    with written(model), _checked(model):
        assert model.standing() is None


def test_another_model_cannot_take_a_share(folder: str) -> None:
    model = EditableModel.load(folder, device="cpu")
    assert model.origin is not None and model.standing() is None  # nobody is there to be told
    standing = Standing(model.origin, model.identity())
    assert standing.there({}).identity() == model.identity()
    with pytest.raises(Parted, match="is another model here than in the first process"):
        Standing(model.origin, "0" * 64).there({})
    gone = Standing(Origin("nowhere/at-all", *model.origin[1:]), model.identity())
    with pytest.raises(Parted, match="nowhere/at-all cannot be had here: "):
        gone.there({})


def test_a_patch_that_was_never_told_is_not_made_up(folder: str) -> None:
    model = EditableModel.load(folder, device="cpu")
    assert model.origin is not None
    likeness = Likeness(model.model, model.origin, "")
    model._likeness = likeness
    copy = Copy(EditableModel.load(folder, device="cpu"))
    with model.patched(patch_of(model, 0.1)):
        first, second = likeness.standing(), likeness.standing()
    assert first is not None and second is not None and second.told is None
    with pytest.raises(Parted, match="was not told here"):
        copy.as_in(second)
    before = copy.model.weights_sha256()
    assert copy.as_in(first).weights_sha256() == copy.as_in(second).weights_sha256() != before
    assert copy.as_in(Standing(model.origin, "")).weights_sha256() == before


@pytest.fixture(scope="module", params=[("nf4", False), ("fp4", True)], ids=["nf4", "fp4 nested"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    kind, nested = request.param
    return str(
        four.quantised(pico.network("llama"), tmp_path_factory.mktemp("packed") / "model", kind, nested)
    )


@four.needed
def test_three_say_what_one_does_in_4_bits_where_a_patch_is_computed_beside(
    packed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_batches(monkeypatch)
    alone = EditableModel.load(packed, device="cpu")
    patch = patch_of(alone, 0.1)
    expected = [said(alone)]
    with alone.patched(patch):
        expected.append(said(alone))
    assert expected[0] != expected[1]
    tasks = three(monkeypatch, continuing, scoring)
    model = EditableModel.load(packed, device="cpu")
    assert said(model) == expected[0]
    with model.patched(patch):
        assert said(model) == expected[1]
    assert said(model) == expected[0]
    assert [task.standing.patch is not None for task in tasks if isinstance(task, Continuing | Rating)] == [
        at in (3, 4, 5) for at in range(9)
    ]


@four.needed
def test_what_is_done_to_a_model_in_4_bits_is_seen(packed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    three(monkeypatch, continuing)
    first = EditableModel.load(packed, device="cpu")
    for at in range(len(fourbit.parts(fourbit.packed(first.model)[0][1]))):
        model = EditableModel.load(packed, device="cpu")
        name, layer = model.anatomy.weight_name(1), fourbit.packed(model.model)[0][1]
        with torch.inference_mode():
            model.model(input_ids=torch.tensor(ROWS[3:4]))
        assert model.standing() is not None
        with fourbit.beside(model.anatomy.down(model.model, 1), patch_of(model, 0.1).factors[name], name):
            assert model.standing() is None  # nobody was told
        assert model.standing() is not None
        fourbit.parts(layer)[at].add_(1)
        assert model.standing() is None
