"""Conflicts are those of the dense formulas, are said before anything is written, and name no subject."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pico, reference
from tests.edit import cases
from unlearn.algebra.moments import Projector, Spectrum, Whitener
from unlearn.edit import conflict_report, conflicts, pipeline
from unlearn.edit.choose import spared_by
from unlearn.edit.conflict_report import Conflicts
from unlearn.edit.corpus import Corpus
from unlearn.edit.look_up_keys import look_up_keys
from unlearn.edit.null_space import Spared
from unlearn.edit.sequence import Sofar
from unlearn.edit.settling import settled
from unlearn.edit.solve.reach import unlisted
from unlearn.edit.statistics import Statistics, key_statistics
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read
from unlearn.model.prompts import ask
from unlearn.model.requests import Fact, Requests
from unlearn.policy import FactSpec, RelationSpec, StatisticsSpec
from unlearn.policy.settings import AlphaEdit, Memit


def spec(folder: Path) -> StatisticsSpec:
    path = folder / "text.txt"
    path.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    return StatisticsSpec(corpus=str(path), tokens=2000)


def measured(
    model: EditableModel, requests: Requests, there: dict[int, Statistics], settings: AlphaEdit
) -> Conflicts:
    assert settings.layers != "auto"
    compared = look_up_keys(model, requests, settings.layers, settings.look_up, Sofar())
    return conflicts.measure(compared, there, spared_by(cases.closed(settings)), Sofar(), {})


def test_cosines_are_those_of_the_dense_metric() -> None:
    torch.manual_seed(0)
    corpus = torch.randn(200, 12, dtype=torch.float64) * torch.logspace(0, -2, 12, dtype=torch.float64)
    second = corpus.T @ corpus / 200
    spectrum = Spectrum.of(second)
    one, other = torch.randn(12, 3, dtype=torch.float64), torch.randn(12, 4, dtype=torch.float64)
    pairs = [
        (Projector.null_space(spectrum, 4), reference.projector(second, 4)),
        (Whitener(spectrum, 0.0), torch.linalg.inv(second)),
    ]
    for metric, dense in pairs:
        lengths = [(k.T @ dense @ k).diagonal().sqrt() for k in (one, other)]
        expected = (one.T @ dense @ other).abs() / lengths[0][:, None] / lengths[1]
        torch.testing.assert_close(conflicts._cosines(one, other, metric), expected)
        assert float((conflicts._cosines(one, other, conflicts._Plain()) - expected).abs().max()) > 1e-3


def test_the_share_inside_the_null_space_and_the_worst_pairs(tmp_path: Path) -> None:
    model, settings = (
        pico.pico("llama"),
        settled(AlphaEdit(layers=(1,), look_up="subject", null_space=0.6), chat=True),
    )
    requests = cases.requests(statistics=spec(tmp_path), method=settings)
    there = key_statistics(model, [1], Corpus(str(tmp_path / "text.txt")), 2000)
    got = measured(model, requests, there, settings)
    row = got["layers"]["1"]
    dense = reference.projector(there[1].second, Spared(0.6).count(there[1].spectrum))
    for fact in requests.facts:
        asked = [ask(model.tokenizer, t, fact.subject) for t in requests.policy.relations["recipe"].prompts]
        keys = read(model, [p.ids for p in asked], [[p.subject_last] for p in asked], [1]).keys[1].double()
        share = ((dense @ keys).square().sum(0) / keys.square().sum(0)).mean()
        assert row["inside"][fact.id] == pytest.approx(float(share), abs=1e-3)
    assert row["earlier"] is None and row["between"]["of"] != row["between"]["with"]
    assert row["kept"]["with"] in ("a sibling (colour)", "a neighbour (recipe)")
    # Subject first: the key of "{subject} is made from" is that of "{subject} ..." for every relation.
    same = cases.requests(
        method=settings,
        relations={
            "recipe": RelationSpec(prompts=("{subject} is made from",)),
            "colour": RelationSpec(prompts=("{subject} has the colour",)),
        },
        facts=tuple(FactSpec(id=r, subject="Zorvex", relation=r) for r in ("recipe", "colour")),
        keep={"siblings": (), "neighbours": ()},
    )
    found = measured(model, same, there, settings)
    assert found["layers"]["1"]["between"]["cosine"] == pytest.approx(1.0)
    assert any("recipe and colour" in s and "cannot tell them apart" in s for s in found["warnings"])


def test_a_second_edit_of_the_same_facts_conflicts_with_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, statistics = pico.pico("llama"), spec(tmp_path)
    method = Memit(layers=(1,), steps=2, look_up="subject")
    requests = cases.requests(statistics=statistics, method=method)
    first = pipeline.edit(model, requests)
    assert first.header["conflicts"]["metric"] == "inverse"
    with caplog.at_level(logging.INFO, logger="unlearn"):
        second = pipeline.edit(model, requests, earlier=first)
    earlier = second.header["conflicts"]["layers"]["1"]["earlier"]
    assert earlier["cosine"] > 0.99 and earlier["with"] is None
    assert any("nearly the key of an earlier edit in layer 1" in s for s in second.header["warnings"])
    said = caplog.text + json.dumps(dict(second.header))
    assert "earlier edits at most" in caplog.text and "WARNING" in caplog.text
    assert not [name for name in ("Zorvex", "Velnar", "Quandel", "Stone") if name in said]


def test_without_statistics_keys_are_compared_as_they_are() -> None:
    settings = settled(AlphaEdit(layers=(1, 2)), chat=True)
    got: Any = measured(pico.pico("llama"), cases.requests(), {}, settings)
    assert got["metric"] == "plain" and got["layers"]["2"]["inside"] is None
    lines = conflict_report.lines_of(got)
    assert "no cached statistics yet" in lines[0] and len([x for x in lines if x.startswith("  layer")]) == 2


def _listed(folder: Path, method: AlphaEdit, *names: str) -> Requests:
    found = cases.requests(statistics=spec(folder), method=method)
    return replace(found, siblings=(), neighbours=tuple(Fact(f"{n}.recipe", n, "recipe", "") for n in names))


def test_the_spread_is_what_the_dense_update_gives_to_neighbours_that_it_does_not_know(
    tmp_path: Path,
) -> None:
    model = pico.pico("llama")
    settings = settled(AlphaEdit(layers=(1,), null_space=0.6, ridge=0.3, kept=4.0), chat=True)
    requests = _listed(tmp_path, settings, "Stone", "Wet", "Green Room")
    there = key_statistics(model, [1], Corpus(str(tmp_path / "text.txt")), 2000)
    got = unlisted(look_up_keys(model, requests, [1], "last", Sofar()), 1, there[1], cases.closed(settings))

    def keys(*subjects: str) -> torch.Tensor:
        asked = [
            ask(model.tokenizer, t, s) for s in subjects for t in requests.policy.relations["recipe"].prompts
        ]
        return read(model, [p.ids for p in asked], [[p.last] for p in asked], [1]).keys[1].double()

    own = keys(*cases.SUBJECTS)
    dense = reference.projector(there[1].second, Spared(0.6).count(there[1].spectrum))
    ridge = 0.3 * (own * (dense @ own)).sum(0).mean()
    ratios = []
    for out, kept in ((("Stone", "Green Room"), ("Wet",)), (("Wet",), ("Stone", "Green Room"))):
        whole = torch.cat([own, 2.0 * keys(*kept)], 1)
        gram = whole.T @ dense @ whole + ridge * torch.eye(whole.shape[1], dtype=torch.float64)
        row = torch.linalg.solve(gram, whole.T @ dense)[: own.shape[1]].sum(0)
        ratios.append((row @ keys(*out)) / (row @ own).mean())
    assert got == pytest.approx(float(torch.cat(ratios).mean()), abs=1e-3)


def test_of_one_neighbour_nothing_can_be_left_out(tmp_path: Path) -> None:
    model = pico.pico("llama")
    settings = settled(AlphaEdit(layers=(1,), null_space=0.6, kept=0.0), chat=True)
    there = key_statistics(model, [1], Corpus(spec(tmp_path).corpus), 2000)

    def reach(*names: str) -> float | None:
        compared = look_up_keys(model, _listed(tmp_path, settings, *names), [1], "last", Sofar())
        return unlisted(compared, 1, there[1], cases.closed(settings))

    assert reach("Stone") is None
    # Names that are the requests' own, as if they were others: nothing tells them apart.
    assert reach("Zorvex", "Velnar") == pytest.approx(1.0, abs=0.2)
