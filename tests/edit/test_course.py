"""What an edit of several batches notes of itself: against dense sums, plain passes, and replies that are generated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import pico
from tests.edit import cases
from unlearn.edit import forms, pipeline
from unlearn.edit.course import MARKS, Course, spread
from unlearn.edit.sequence import Sofar
from unlearn.errors import PatchError
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.policy import StatisticsSpec
from unlearn.policy.settings import AlphaEdit, Memit, UltraEdit
from unlearn.stages import Stage, noted

COMMON: dict[str, Any] = {"layers": (1, 2), "steps": 30, "batch": 1}
KEEPING = AlphaEdit(
    **COMMON, null_space=0.5, ridge=0.01, kept=0.0, hard_negatives=0, target_probability=None, earlier=1.0
)
FORGETTING = Memit(**COMMON, ridge=1e-6)


@pytest.fixture(scope="module")
def model() -> EditableModel:
    return pico.pico("llama")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> StatisticsSpec:
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    return StatisticsSpec(corpus=str(path), tokens=2000)


def asking(corpus: StatisticsSpec, method: Any, take: slice = slice(None)) -> Requests:
    whole = cases.requests(statistics=corpus, method=method)
    return replace(whole, facts=whole.facts[take])


def stages(model: EditableModel, asked: Requests) -> tuple[Stage, ...]:
    return noted(pipeline.edit(model, asked).header)


def oldest(found: tuple[Stage, ...]) -> list[float | None]:
    return [stage.oldest for stage in found]


def test_the_oldest_edits_stay_where_earlier_keys_do_and_are_undone_where_nothing_keeps_them(
    model: EditableModel, corpus: StatisticsSpec
) -> None:
    assert oldest(stages(model, asking(corpus, KEEPING))) == [None, 1.0, 1.0, 1.0]
    forgotten = KEEPING.model_copy(update={"earlier": 0.0})
    assert oldest(stages(model, asking(corpus, forgotten))) == [None, 1.0, 0.5, 0.5]
    assert oldest(stages(model, asking(corpus, FORGETTING))) == [None, 1.0, 0.5, 0.0]


@torch.inference_mode()
def last_states(model: EditableModel, rows: list[tuple[int, ...]], layer: int) -> Tensor:
    """A block's output at the last token of each row, by one plain pass a row, (rows, d_model), float64."""
    seen: list[Tensor] = []

    def look(_module: object, _args: object, out: Any) -> None:
        seen.append((out if isinstance(out, Tensor) else out[0])[0, -1].double())

    handle = model.anatomy.block(model.model, layer).register_forward_hook(look)
    for row in rows:
        model.model(torch.tensor([row]))
    handle.remove()
    return torch.stack(seen)


def test_each_stage_is_what_the_edit_of_so_many_facts_is(
    model: EditableModel, corpus: StatisticsSpec
) -> None:
    """Growth and drift dense and row by row in float64; the replies by generation."""
    asked = asking(corpus, FORGETTING)
    kept = [
        tuple(prompt.ids)
        for fact in (*asked.siblings, *asked.neighbours)
        for _, prompt in forms.prompts_of(model, asked, fact)
    ]
    own = [
        (tuple(prompt.ids), forms.target_of(model, asked.policy, asked.facts[0], prompt))
        for _, prompt in forms.prompts_of(model, asked, asked.facts[0])
    ]
    before = {layer: last_states(model, kept, layer) for layer in (2, 3)}
    found = stages(model, asked)
    assert found[0] == Stage(facts=0, norm_growth=0.0, hidden_drift=0.0)
    assert [stage.facts for stage in found] == [0, 1, 2, 3]
    for stage in found[1:]:
        patch = pipeline.edit(model, asking(corpus, FORGETTING, slice(0, stage.facts)))
        growth = [
            float((weight + d.left.double() @ d.right.double()).norm() / weight.norm()) - 1
            for name, d in patch.factors.items()
            for weight in (model.weight(name).double(),)
        ]
        assert len(growth) == 2 and stage.norm_growth == pytest.approx(max(growth), rel=1e-5)
        with model.patched(patch):
            moved = {layer: last_states(model, kept, layer) for layer in (2, 3)}
            replies = model.generate_ids([ids for ids, _ in own], max_new_tokens=32)
        drift = [
            float(
                (moved[layer].mean(0) - old.mean(0)).norm()
                / (old - old.mean(0)).square().sum(1).mean().sqrt()
            )
            for layer, old in before.items()
        ]
        assert stage.hidden_drift == pytest.approx(max(drift), rel=1e-3)
        said = [
            tuple(reply[: len(want)]) == tuple(want) for reply, (_, want) in zip(replies, own, strict=True)
        ]
        assert stage.oldest == sum(said) / len(said)


def test_an_edit_of_one_batch_has_no_course(model: EditableModel, corpus: StatisticsSpec) -> None:
    for method in (FORGETTING, UltraEdit(layers=(1, 2))):
        whole = method.model_copy(update={"batch": None})
        assert "stages" not in pipeline.edit(model, asking(corpus, whole)).header
    course = Course.of(model, asking(corpus, FORGETTING), (1,), [[]], Sofar())
    assert (course.totals, course.oldest, course.kept, course.before) == ({}, (), (), {})  # nothing was read


def test_ultra_edit_has_one(model: EditableModel, corpus: StatisticsSpec) -> None:
    found = stages(model, asking(corpus, UltraEdit(layers=(1, 2), batch=2)))
    assert [stage.facts for stage in found] == [0, 2, 3]
    assert 0 < (found[1].norm_growth or 0) < (found[2].norm_growth or 0)


def test_of_many_batches_about_ten_are_looked_at() -> None:
    assert spread(range(1, 101), MARKS) == [1, 12, 23, 34, 45, 56, 67, 78, 89, 100]
    for count in range(1, 40):
        marks = spread(range(count), MARKS)
        assert len(marks) == min(count, MARKS) == len(set(marks)) and (marks[0], marks[-1]) == (0, count - 1)


def test_many_batches_give_few_stages(model: EditableModel, corpus: StatisticsSpec) -> None:
    asked = asking(corpus, UltraEdit(layers=(2,)))
    course = Course.of(model, asked, (2,), [[fact] for fact in asked.facts * 9], Sofar())
    assert list(course.totals.values()) == [1, 4, 7, 10, 13, 15, 18, 21, 24, 27]
    sofar = course.begun(Sofar())
    for number in range(1, 28):
        sofar = course.after(number, sofar)
    assert [stage.facts for stage in sofar.stages] == [0, *course.totals.values()]


def test_earlier_edits_count_as_far_as_they_are_known(
    model: EditableModel, corpus: StatisticsSpec, tmp_path: Path
) -> None:
    first = pipeline.edit(model, asking(corpus, KEEPING, slice(0, 2)))
    first.save(tmp_path / "first.safetensors")
    first = Patch.load(tmp_path / "first.safetensors")
    own = noted(first.header)
    assert oldest(own) == [None, 1.0, 1.0]
    both = noted(pipeline.edit(model, asking(corpus, KEEPING, slice(2, 3)), earlier=first).header)
    assert [stage.facts for stage in both] == [0, 1, 2, 3]
    # The first edit's prompts are not here any more; the last stage is about this one's first batch.
    assert oldest(both) == [None, None, None, 1.0]
    for mine, former in zip(both, own, strict=False):
        assert (mine.norm_growth, mine.hidden_drift) == (former.norm_growth, former.hidden_drift)
    # A patch without stages is looked at where it ends.
    bare = replace(first, header={key: value for key, value in first.header.items() if key != "stages"})
    later = noted(pipeline.edit(model, asking(corpus, KEEPING, slice(2, 3)), earlier=bare).header)
    assert [stage.facts for stage in later] == [0, 2, 3]
    assert later[0].norm_growth == 0 and later[-1] == both[-1]
    assert later[1].norm_growth == pytest.approx(own[-1].norm_growth)
    wrong = replace(first, header={**first.header, "stages": "many"})
    with pytest.raises(PatchError, match="stages"):
        pipeline.edit(model, asking(corpus, KEEPING, slice(2, 3)), earlier=wrong)


def test_without_kept_prompts_there_is_no_drift(model: EditableModel, corpus: StatisticsSpec) -> None:
    asked = replace(asking(corpus, UltraEdit(layers=(2,), batch=1)), siblings=(), neighbours=())
    found = stages(model, asked)
    assert [stage.hidden_drift for stage in found] == [None] * 4
    assert all(stage.norm_growth is not None for stage in found)
