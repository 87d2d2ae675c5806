"""`unlearn stats`: what the edit would take for the directions that a model uses."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from unlearn.commands.common import cache_for, load_model, settle
from unlearn.commands.options import Place, as_json, model_options, overrides, policy_overrides, quiet
from unlearn.commands.said import say
from unlearn.errors import PolicyError
from unlearn.order import Placement
from unlearn.policy.file import load_policy
from unlearn.policy.settings import Editor
from unlearn.policy.settings_trained import NullSpaceTuning
from unlearn.progress import progress_for

if TYPE_CHECKING:
    from unlearn.edit.statistics import Statistics
    from unlearn.model.editable import EditableModel


@click.command(short_help="Show the key statistics behind an edit.")
@click.argument("policy", type=Place())
@click.option("--no-cache", is_flag=True, help="Compute the statistics anew, and do not keep them.")
@policy_overrides
@model_options
@as_json
@quiet
def stats(
    policy: Path,
    no_cache: bool,
    model: str | None,
    method: str | None,
    settings: tuple[str, ...],
    placement: Placement,
    as_json: bool,
    quiet: bool,
) -> int:
    """Compute the key statistics that POLICY needs, and print what they say per layer.

    They are cached, so a later `apply` starts with them. The columns: length of a key, tokens read, mean squared length
    of a key, the directions that carry half and 99 % of it, and the rank that the policy's method leaves to the edit.

    \b
    Examples:
        unlearn stats policies/demo.yaml
        unlearn stats policies/demo.yaml --set statistics.tokens=50000 --set method.layers='[2, 3]'
    """
    loaded = load_policy(policy, overrides(model, method, settings))
    settle(loaded)
    from unlearn.edit import choose
    from unlearn.edit.requests.resolve import outline
    from unlearn.edit.settling import algorithm
    from unlearn.edit.statistics import Source

    asked = choose.options(loaded.method)[0]
    if not isinstance(asked, Editor | NullSpaceTuning):
        raise PolicyError(f"method.name: {loaded.method.name} is no editor and uses no key statistics")
    edited = load_model(loaded.model, placement, quiet, tokenizer=loaded.tokenizer)
    chosen = choose.settle(edited, loaded, asked, loaded.facts)
    alone = choose.spared_by(algorithm(chosen))
    cache = cache_for(no_cache)
    source = Source.of(loaded, cache, progress_for(quiet))
    begin = time.monotonic()
    layers, _ = choose.placed(edited, outline(loaded), chosen)
    found = source.statistics(edited, layers)
    rows = [
        _row(edited, layer, there, alone.projector(there.spectrum).rank if alone else None)
        for layer, there in found.items()
    ]
    about = {
        "model": edited.name,
        "corpus": source.corpus.name,
        "cache": str(cache.folder) if cache else None,
        "seconds": round(time.monotonic() - begin, 2),
    }
    if as_json:
        say(json.dumps({**about, "layers": rows}, indent=2))
        return 0
    say(f"{edited.name}: keys over {source.corpus.name}, {chosen.name}")
    _print(rows)
    say(f"cached in {cache.folder}" if cache else "not cached")
    return 0


class LayerRow(TypedDict):
    """What is said of one layer."""

    layer: int
    weight: str
    d_in: int
    tokens: int
    energy: float
    half: int
    most: int
    rank: int


def _row(model: EditableModel, layer: int, there: Statistics, rank: int | None) -> LayerRow:
    spectrum = there.spectrum
    return {
        "layer": layer,
        "weight": model.anatomy.weight_name(layer),
        "d_in": len(spectrum.values),
        "tokens": there.tokens,
        "energy": float(spectrum.values.sum()),
        "half": spectrum.kept_by_energy(0.5),
        "most": spectrum.kept_by_energy(0.99),
        "rank": len(spectrum.values) if rank is None else rank,
    }


def _print(rows: Sequence[LayerRow]) -> None:
    say(f"{'layer':>7}{'d_in':>8}{'tokens':>10}{'energy':>12}{'50 %':>7}{'99 %':>7}{'rank left':>11}")
    for row in rows:
        counts = f"{row['half']:>7}{row['most']:>7}{row['rank']:>11}"
        say(f"{row['layer']:>7}{row['d_in']:>8}{row['tokens']:>10}{row['energy']:>12.4g}{counts}")
