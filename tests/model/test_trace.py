"""Causal tracing: passes of many states against one pass per state, and controls: no noise, and everything put back."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests import families, pico
from unlearn.errors import ModelError
from unlearn.model.trace import _draw, spread, trace
from unlearn.model.traced import (
    ATTENTION,
    KINDS,
    MLP,
    NO_ATTENTION,
    NO_MLP,
    ROLES,
    STATE,
    Average,
    Trace,
    Traceable,
    average,
    default_window,
    propose,
    span,
)

PROMPTS = [
    Traceable(tuple(range(5, 12)), (2, 4), 17),
    Traceable(tuple(range(30, 34)), (1, 1), 3),
    Traceable(tuple(range(50, 61)), (0, 3), 200),
    Traceable((9, 8, 7, 6, 5, 4, 3), (4, 6), 11),
]


def naive(
    model: Any, row: Traceable, noise: torch.Tensor, window: int, kind: str, layer: int, at: int
) -> float:
    """One state of one prompt under one draw of noise: three whole passes without padding."""
    anatomy, network = model.anatomy, model.model
    modules = {(STATE, i): anatomy.block(network, i) for i in range(anatomy.layers)}
    modules |= {(MLP, i): anatomy.mlp(network, i) for i in range(anatomy.layers)}
    modules |= {(ATTENTION, i): anatomy.attention(network, i) for i in range(anatomy.layers)}

    def run(noisy: bool, put: dict[Any, torch.Tensor]) -> tuple[dict[Any, torch.Tensor], float]:
        seen, handles = {}, []
        for place, module in modules.items():

            def hook(_m: Any, _a: Any, out: Any, place: Any = place) -> Any:
                first = out if isinstance(out, torch.Tensor) else out[0]
                if place in put:
                    first = first.clone()
                    first[0, at] = put[place][0, at]
                seen[place] = first
                return first if isinstance(out, torch.Tensor) else (first, *out[1:])

            handles.append(module.register_forward_hook(hook))
        if noisy:

            def add(_m: Any, _a: Any, out: torch.Tensor) -> torch.Tensor:
                out = out.clone()
                out[0, row.subject[0] : row.subject[1] + 1] += noise
                return out

            handles.append(network.get_input_embeddings().register_forward_hook(add))
        with torch.no_grad():
            logits = network(torch.tensor([row.ids])).logits[0, -1]
        for handle in handles:
            handle.remove()
        return seen, float(logits.softmax(-1)[row.target])

    clean, _ = run(False, {})
    corrupted, low = run(True, {})
    if kind in (MLP, ATTENTION):
        put = {(kind, i): clean[kind, i] for i in span(layer, window, anatomy.layers)}
    else:
        put = {(STATE, layer): clean[STATE, layer]}
        for severed, frozen in ((MLP, NO_MLP), (ATTENTION, NO_ATTENTION)):
            if kind == frozen:
                put |= {(severed, i): corrupted[severed, i] for i in range(anatomy.layers)}
    return run(True, put)[1] - low


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_traces_equal_one_state_at_a_time(family: str) -> None:
    model = pico.pico(family)
    found = trace(model, PROMPTS, samples=2, window=2, seed=5)
    deviation = 3 * spread(model, PROMPTS)
    for number, (row, got) in enumerate(zip(PROMPTS, found, strict=True)):
        draws = _draw(row, 2, deviation, model.anatomy.d_model, 5, number)
        for kind in KINDS:
            assert got.effects[kind].shape == (4, len(row.ids) - row.first)
            # Every layer and every role; not every token, which would take a minute.
            for layer in range(4):
                at = row.first + (layer * 2) % (len(row.ids) - row.first)
                wanted = sum(naive(model, row, draw, 2, kind, layer, at) for draw in draws) / 2
                assert float(got.effects[kind][layer, at - row.first]) == pytest.approx(wanted, abs=2e-6), (
                    number,
                    kind,
                    layer,
                )
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.model.modules())


@pytest.mark.parametrize("case", families.CASES)
def test_every_family_is_traced_rightly(case: str) -> None:
    """Its attention and MLP are where the table says, with whatever norms and multipliers lie between."""
    model = families.kept(case)
    rows = PROMPTS[:2]
    found = trace(model, rows, samples=1, window=2)
    deviation = 3 * spread(model, rows)
    row, got = rows[0], found[0]
    (draw,) = _draw(row, 1, deviation, model.anatomy.d_model, 0, 0)
    for number, kind in enumerate(KINDS):
        layer = number % families.LAYERS
        at = len(row.ids) - 1 if number < 3 else row.subject[1]
        wanted = naive(model, row, draw, 2, kind, layer, at)
        assert float(got.effects[kind][layer, at - row.first]) == pytest.approx(wanted, abs=1e-5), kind
    assert float(got.effects[STATE][-1, -1]) == pytest.approx(got.clean - got.corrupted, abs=1e-5)


def test_the_reference_is_not_trivially_met() -> None:
    """The effects are no zeros, and what is severed matters."""
    found = trace(pico.pico("llama"), PROMPTS, samples=2, window=2)
    for kind in KINDS:
        assert max(float(t.effects[kind].abs().max()) for t in found) > 1e-3, kind
    for kind in (NO_MLP, NO_ATTENTION):
        assert any(not torch.allclose(t.effects[kind], t.effects[STATE], atol=1e-4) for t in found)


def test_without_noise_there_is_no_effect() -> None:
    for got in trace(pico.pico("llama"), PROMPTS, noise=0.0, samples=1):
        assert got.corrupted == pytest.approx(got.clean, abs=1e-6)
        for kind in KINDS:
            assert float(got.effects[kind].abs().max()) < 1e-6


def test_what_restores_everything_restores_the_probability() -> None:
    model = pico.pico("gpt2")
    found = trace(model, PROMPTS, samples=3)
    for got in found:  # the last token's state of the last block is all that the prediction sees
        for kind in (STATE, NO_MLP, NO_ATTENTION):
            assert float(got.effects[kind][-1, -1]) == pytest.approx(got.clean - got.corrupted, abs=1e-6)
            assert float(got.effects[kind][-1, :-1].abs().sum()) < 1e-6  # and no other token's is
    # A subject of one token that is also the last: its MLPs and attention together are not the whole stream ...
    alone = Traceable((5, 6, 7, 8), (3, 3), 20)
    one = trace(model, [alone], samples=2, window=99)[0]
    assert one.effects[STATE].shape == (4, 1)
    gap = one.clean - one.corrupted
    # ... since the noise itself stays in the stream, while every state restores everything.
    assert one.effects[STATE][:, 0].tolist() == pytest.approx([gap] * 4, abs=1e-6)
    assert abs(float(one.effects[MLP][0, 0]) - gap) > 1e-6


def test_the_other_prompts_do_not_matter() -> None:
    model = pico.pico("qwen2")
    together = trace(model, PROMPTS, samples=2)
    deviation = 3 * spread(model, PROMPTS) / spread(model, PROMPTS[:1])
    alone = trace(model, PROMPTS[:1], samples=2, noise=deviation)[0]
    for kind in KINDS:
        torch.testing.assert_close(alone.effects[kind], together[0].effects[kind], rtol=0, atol=1e-6)
    again = trace(model, PROMPTS, samples=2)
    assert all(torch.equal(a.effects[MLP], b.effects[MLP]) for a, b in zip(again, together, strict=True))
    other = trace(model, PROMPTS, samples=2, seed=1)  # the control
    assert not torch.allclose(other[0].effects[STATE], together[0].effects[STATE], atol=1e-6)


def test_roles() -> None:
    roles = trace(pico.pico("llama"), PROMPTS, samples=1)
    first, middle, last, further, end = ROLES
    assert roles[0].roles == (first, middle, last, further, end)
    assert roles[1].roles == (last, further, end)
    assert roles[2].roles == (first, middle, middle, last, *[further] * 6, end)
    assert roles[3].roles == (first, middle, last)  # the subject ends the prompt


def test_the_average_is_over_prompts_and_inside_each_over_tokens() -> None:
    def made(values: list[float], roles: tuple[str, ...]) -> Trace:
        return Trace(0.9, 0.1, {STATE: torch.tensor([values])}, roles)

    first, middle, last, further, end = ROLES
    found = average(
        [made([0.1, 0.3, 0.5, 0.7], (last, further, further, end)), made([0.2, 0.6], (last, end))]
    )
    assert found.counts == (0, 0, 2, 1, 2)
    effect = found.effects[STATE][:, 0]
    assert effect[:2].isnan().all()
    assert effect[2:].tolist() == pytest.approx([0.15, 0.4, 0.65])
    assert float(found.errors[STATE][2, 0]) == pytest.approx(0.05)
    assert found.errors[STATE][3, 0].isnan()
    with pytest.raises(ModelError, match="nothing to average"):
        average([])


def test_windows() -> None:
    assert [list(span(layer, 3, 5)) for layer in range(5)] == [
        [0, 1],
        [0, 1, 2],
        [1, 2, 3],
        [2, 3, 4],
        [3, 4],
    ]
    assert list(span(2, 1, 4)) == [2]
    assert [default_window(n) for n in (4, 6, 32, 48)] == [1, 1, 7, 10]


def test_what_cannot_be_traced_is_said() -> None:
    model = pico.pico("llama")
    assert trace(model, []) == []
    with pytest.raises(ModelError, match="its subject lies outside"):
        trace(model, [Traceable((1, 2), (1, 2), 3)])


def curves(state: list[float], severed: list[float]) -> Average:
    """Averages in which only the last subject token has effects."""
    rows = {}
    for kind, values in ((STATE, state), (NO_MLP, severed)):
        rows[kind] = torch.zeros(len(ROLES), len(values))
        rows[kind][2] = torch.tensor(values)
    return Average(9, 1.0, 0.1, rows, rows, (9,) * 5)


def test_a_proposal_is_the_shortest_run_over_which_the_mediated_part_falls() -> None:
    state = [0.5] * 6 + [0.4, 0.2, 0.1, 0.0]
    # The MLPs of layers 3 to 5 do the work: severed above layer 2 the state does nothing, above 5 nothing is lost.
    found = curves(state, [0.0, 0.0, 0.0, 0.15, 0.35, 0.5, 0.4, 0.2, 0.1, 0.0])
    assert propose(found, ROLES[2]) == (3, 4, 5)
    assert propose(found, ROLES[2], 1, 1) == (4,)
    assert propose(found, ROLES[4]) == ()  # nothing is mediated there
    assert propose(curves(state, state), ROLES[2]) == ()
    assert propose(curves([0.05] * 10, [0.0] * 5 + [0.05] * 5), ROLES[2]) == ()  # too little to mean anything
    # All is brought about by the last layer, where nothing could read what is written.
    assert propose(curves([0.5] * 6, [0.0] * 5 + [0.5]), ROLES[2]) == ()
    lost = curves([float("nan")] * 4, [float("nan")] * 4)
    assert propose(lost, ROLES[2]) == ()
