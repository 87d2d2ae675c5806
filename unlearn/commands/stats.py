"""`unlearn stats`: what the edit would take for the directions that a model uses, shown and handed on."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from unlearn.commands.common import cache_for, read_policy
from unlearn.commands.options import Place, as_json, model_options, policy_overrides, quiet
from unlearn.commands.said import say
from unlearn.errors import PolicyError, UnlearnError
from unlearn.loaded import load_model
from unlearn.order import Placement
from unlearn.policy.settings import Editor
from unlearn.policy.settings_trained import NullSpaceTuning
from unlearn.progress import progress_for
from unlearn.runs.folder import outside_runs, whole_file

if TYPE_CHECKING:
    from unlearn.edit.statistics import Source, Statistics
    from unlearn.model.editable import EditableModel


class _Shown(click.Group):
    """A group in which `stats POLICY` is short for `stats show POLICY`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_Shown, short_help="Show, export or import the key statistics behind an edit.", no_args_is_help=False
)
def stats() -> None:
    """Show, export or import the key statistics behind an edit; `stats POLICY` shows them.

    \b
    Examples:
        unlearn stats policies/demo.yaml
        unlearn stats export demo-statistics.safetensors --policy policies/demo.yaml
        unlearn stats import demo-statistics.safetensors --policy policies/demo.yaml
    """


_anew = click.option("--no-cache", is_flag=True, help="Compute the statistics anew, and do not keep them.")
_policy = click.option(
    "--policy", "-p", type=Place(), required=True, help="Which names the model, the corpus and the method."
)


@dataclass(frozen=True)
class _Needed:
    """What a policy needs statistics for."""

    model: EditableModel
    source: Source
    method: Editor | NullSpaceTuning
    layers: tuple[int, ...]


def _needed(
    policy: Path, given: Mapping[str, str], placement: Placement, no_cache: bool, quiet: bool
) -> _Needed:
    loaded, _ = read_policy(policy, given)
    from unlearn.edit import choose
    from unlearn.edit.depth import placed, told_apart
    from unlearn.edit.requests.resolve import outline
    from unlearn.edit.statistics import Source

    asked, *others = choose.options(loaded.method)
    if not isinstance(asked, Editor | NullSpaceTuning):
        raise PolicyError(f"method.name: {loaded.method.name} is no editor and uses no key statistics")
    edited = load_model(loaded.model, placement, None, progress_for(quiet), loaded.tokenizer)
    chosen = choose.settle(edited, loaded, asked, loaded.facts)
    source = Source.of(loaded, edited, cache_for(no_cache), progress_for(quiet))
    apart = cache(partial(told_apart, edited, outline(loaded)))
    every = [chosen, *(choose.settle(edited, loaded, other, loaded.facts) for other in others)]
    layers = {layer for settings in every for layer in placed(edited, settings, apart).layers}
    return _Needed(edited, source, chosen, tuple(sorted(layers)))


@stats.command(short_help="Show them, layer by layer.")
@click.argument("policy", type=Place())
@_anew
@policy_overrides
@model_options
@as_json
@quiet
def show(
    policy: Path,
    no_cache: bool,
    given: dict[str, str],
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
    needed = _needed(policy, given, placement, no_cache, quiet)
    from unlearn.edit import choose
    from unlearn.edit.settling import algorithm

    edited, cache, alone = needed.model, needed.source.cache, choose.spared_by(algorithm(needed.method))
    begin = time.monotonic()
    found = needed.source.statistics(edited, needed.layers)
    rows = [
        _row(edited, layer, there, alone.projector(there.spectrum).rank if alone else None)
        for layer, there in found.items()
    ]
    about = {
        "model": edited.name,
        "corpus": needed.source.corpus.name,
        "cache": str(cache.folder) if cache else None,
        "seconds": round(time.monotonic() - begin, 2),
    }
    if as_json:
        say(json.dumps({**about, "layers": rows}, indent=2))
        return 0
    say(f"{edited.name}: keys over {needed.source.corpus.name}, {needed.method.name}")
    _print(rows)
    say(f"cached in {cache.folder}" if cache else "not cached")
    return 0


@stats.command("export", short_help="Write them to a file for others.")
@click.argument("file", type=Place(dir_okay=False))
@_policy
@_anew
@click.option("--force", is_flag=True, help="Replace a file of that name.")
@policy_overrides
@model_options
@quiet
def export_(
    file: Path,
    policy: Path,
    no_cache: bool,
    force: bool,
    given: dict[str, str],
    placement: Placement,
    quiet: bool,
) -> int:
    """Write the key statistics that a policy needs to FILE (safetensors), for another machine to import.

    They are computed if the cache has none. Only second moments of keys are in it, with the hashes of the model, its
    tokenizer and the corpus; no text.

    \b
    Example:
        unlearn stats export demo-statistics.safetensors --policy policies/demo.yaml
    """
    if file.exists() and not force:
        raise PolicyError(f"{file} exists already; choose another name, or --force")
    outside_runs(file)
    needed = _needed(policy, given, placement, no_cache, quiet)
    from unlearn.edit import statistics_file

    found = needed.source.statistics(needed.model, needed.layers)
    with whole_file(file) as made:
        statistics_file.save(made, found, needed.source.made_of(needed.model))
    say(f"{file}: key statistics of {_listed(needed.layers)} of {needed.model.name}")
    return 0


@stats.command("import", short_help="Keep those of a file for later runs.")
@click.argument("file", type=Place())
@_policy
@policy_overrides
@model_options
@quiet
def import_(
    file: Path,
    policy: Path,
    given: dict[str, str],
    placement: Placement,
    quiet: bool,
) -> int:
    """Put the key statistics of FILE into the cache, where the next `apply` of the policy finds them.

    A file that was made of another model, tokenizer or corpus, of another number of tokens, or that is damaged, is
    refused as a whole. Import statistics of people only whose patches you would apply as well: hashes say what the
    numbers claim to be made of, and nobody can see whether they were.

    \b
    Example:
        unlearn stats import demo-statistics.safetensors --policy policies/demo.yaml
    """
    needed = _needed(policy, given, placement, False, quiet)
    from unlearn.edit import statistics, statistics_file

    cache, origin = needed.source.cache, needed.source.made_of(needed.model)
    if cache is None:
        raise UnlearnError(
            "there is no cache to import into; set UNLEARN_CACHE to a folder that can be written"
        )
    layers = []
    for layer, there in statistics_file.load(file, needed.model, origin):
        if not statistics.keep(cache, layer, there, origin):
            raise UnlearnError(
                f"{cache.folder} does not take the statistics of layer {layer}: is the disk full?"
            )
        layers.append(layer)
    say(f"cached in {cache.folder}: key statistics of {_listed(layers)} of {needed.model.name}")
    return 0


def _listed(layers: Sequence[int]) -> str:
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"


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
