"""What a dry run counts, against the arithmetic that the work itself does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests import pico
from tests.edit import cases
from unlearn.audit.cache import Paces
from unlearn.audit.estimate import Speed
from unlearn.commands.forecast import REPLY, USUAL, Cost, Size, costs, numbers, per_step, per_token
from unlearn.edit import pipeline
from unlearn.edit.choose import choose
from unlearn.edit.corpus import Corpus
from unlearn.edit.forms import prompts_of
from unlearn.edit.own_text import steps_of
from unlearn.edit.statistics import Source, key_statistics, tokens_of
from unlearn.model import narrow
from unlearn.model.memory import taken
from unlearn.policy import StatisticsSpec
from unlearn.policy.settings_trained import NullSpaceTuning

NEAR = 0.25
"""How far a count may be off."""
KEPT_PROMPTS = 8
"""Of the small policy: two about each sibling and the neighbour."""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    long = " ".join(pico.LINES * 2)
    path.write_text("\n".join(f"{long} {n}" for n in range(60)), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is quicker is measured by products, which would be counted."""
    monkeypatch.setattr(narrow, "quickest_dtype", lambda _device: torch.float32)


def test_a_token_of_the_statistics_costs_its_blocks_and_its_products(text: Path) -> None:
    model = pico.pico("llama")
    ratios = []
    for layers in ([0], [1, 2], [0, 1, 2, 3]):
        with FlopCounterMode(display=False) as counter:
            found = key_statistics(model, layers, Corpus(str(text)), 4000)
        done = counter.get_total_flops() / found[layers[0]].tokens
        assert per_token(model, layers) * 2 * numbers(model) == pytest.approx(done, rel=NEAR), layers
        ratios.append(done)
    assert ratios[2] > 2 * ratios[0]  # the control: it is not the same for all


def test_a_step_of_training_costs_what_is_counted(text: Path) -> None:
    model, layers, flops = pico.pico("llama"), (2, 3), []
    for steps in (2, 12):
        method = NullSpaceTuning(layers=layers, null_space=0.7, steps=steps)
        asked = cases.requests(statistics=StatisticsSpec(corpus=str(text), tokens=2000), method=method)
        with FlopCounterMode(display=False) as counter:
            pipeline.edit(model, asked)
        flops.append(counter.get_total_flops())
    lengths = [len(prompt.ids) for fact in asked.facts for _, prompt in prompts_of(model, asked, fact)]
    size = Size(len(lengths), sum(lengths) / len(lengths) + USUAL, len(lengths) + KEPT_PROMPTS)
    counted = 2 * numbers(model) * per_step(model, layers, size)
    assert counted == pytest.approx((flops[1] - flops[0]) / 10, rel=NEAR)
    # The control: from the first block on it would be another number.
    assert 2 * numbers(model) * per_step(model, (0, 3), size) > (1 + NEAR) * counted


def test_memory_that_is_taken_is_counted() -> None:
    before = taken(torch.device("cpu"))
    held = torch.ones(256 << 20, dtype=torch.uint8)  # more than malloc keeps of what was given back
    assert before > 0 and taken(torch.device("cpu")) - before > 0.75 * held.numel()


def test_what_is_said_in_batches_is_timed_by_their_steps(text: Path) -> None:
    model, method = pico.pico("llama"), NullSpaceTuning(layers=(2, 3), null_space=0.7, steps=2)
    asked = cases.requests(statistics=StatisticsSpec(corpus="own", tokens=2000), method=method)
    source = Source.of(asked.policy, model, None, reads=False)
    chosen, size = choose(model, asked, source), Size(8, 20.0, 300)
    counted = Cost(Speed(0.01, 0.001), 0.0, Paces(None, "pico", "cpu"))
    stepped = counted._replace(tokens=Speed(0.01, 0.001, 0.5))
    plain, found = (costs(model, chosen, asked, size, cost) for cost in (counted, stepped))
    assert found["training"] == plain["training"]
    written = tokens_of(asked.policy, model)
    assert found["statistics"] - plain["statistics"] == pytest.approx(
        0.5 * steps_of(written) - 0.001 * written
    )
    read = replace(chosen, statistics={2: None, 3: None})  # type: ignore[dict-item]
    assert costs(model, read, asked, size, stepped)["statistics"] == 0.5 * steps_of(1)
    # Two batches of at most 256 replies.
    assert found["answers"] - plain["answers"] == pytest.approx(0.5 * 2 * REPLY - 0.001 * 300 * REPLY / 2)
