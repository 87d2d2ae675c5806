"""The table and the picture of `unlearn trace`; importing this imports torch."""

from __future__ import annotations

import math
from typing import Any

from unlearn.charts.figures import Heat, Line, heat, lines
from unlearn.charts.sheet import Panel, sheet
from unlearn.charts.svg import look_of
from unlearn.model import traced
from unlearn.model.traced import Average
from unlearn.shown import shown


def picture(found: Average, described: dict[str, Any]) -> str:
    """Heat maps of states, MLP and attention outputs, and the curves with parts severed."""
    window, chosen = described["window"], described["proposal"]["layers"]
    over = f"{window} layers" if window > 1 else "1 layer"
    titles = {
        traced.STATE: "Hidden state",
        traced.MLP: f"MLP outputs, {over}",
        traced.ATTENTION: f"Attention outputs, {over}",
    }
    maps = []
    for kind, title in titles.items():
        values = {
            role: _known(row.tolist()) for role, row in zip(traced.ROLES, found.effects[kind], strict=True)
        }
        top = max([v for row in values.values() for v in row if v is not None] + [1e-6])
        layers = [str(layer) for layer in range(found.effects[kind].shape[1])]
        maps.append(Heat(f"{title} (full: {top:.2g})", layers, values, top))
    role = described["proposal"]["token"]
    row = traced.ROLES.index(role)
    names = {
        traced.STATE: "state restored",
        traced.NO_MLP: "state restored, MLPs severed",
        traced.NO_ATTENTION: "state restored, attention severed",
    }
    series = []
    for i, (kind, name) in enumerate(names.items()):
        mean, error = found.effects[kind][row], 1.96 * found.errors[kind][row]
        low, high = _known((mean - error).tolist()), _known((mean + error).tolist())
        series.append(Line(look_of(i, name), list(range(len(mean))), _known(mean.tolist()), low, high))
    drawn = heat(maps, traced.ROLES, "layer", (chosen[0], chosen[-1]) if chosen else None)
    marked = (chosen[0] - 0.5, chosen[-1] + 0.5) if chosen else None
    curves = lines(series, "layer", "", size=(drawn.width, 330), marked=marked)
    return sheet(
        f"Causal trace of {described['policy']} on {described['model']}",
        [Panel("Average indirect effect, by token and layer", drawn), Panel(f"At the {role}", curves)],
        1,
        [one.look for one in series],
        f"Over {described['prompts']} prompts; probability of the answer {found.clean:.2f}, with noise "
        f"{found.corrupted:.2f}. Marked: the proposed layers. Ranges: 95 %.",
    )


def _known(values: list[float]) -> list[float | None]:
    return [None if math.isnan(v) else v for v in values]


def table(found: dict[str, Any]) -> str:
    """The effects of restored states by layer, and what the MLPs mediate at the token that the method writes."""
    effects, proposal = found["effects"], found["proposal"]
    row = found["roles"].index(proposal["token"])
    heads = [
        *(role.removesuffix("s").removesuffix(" token") for role in found["roles"]),
        "MLP",
        "attention",
        "mediated",
    ]
    window = "of that layer" if found["window"] == 1 else f"of {found['window']} layers around"
    lines = [
        f"{found['policy']} on {found['model']}: {found['prompts']} prompts about {found['facts']} facts "
        f"({found['prompts_asked']} asked), {found['samples']} draws of noise",
        f"probability of the answer's first token: {found['clean']:.3f}, with noise {found['corrupted']:.3f}",
        "",
        f"average indirect effect of restoring the hidden state, by token; then, at the {proposal['token']},",
        f"of the MLP and attention outputs {window}, and what the MLPs above mediate:",
        "",
        "  layer" + "".join(f"{head:>16}" for head in heads),
    ]
    for layer in range(len(proposal["mediated_by_mlps"])):
        values = [effects["state"][i][layer] for i in range(len(found["roles"]))]
        values += [
            effects["mlp"][row][layer],
            effects["attention"][row][layer],
            proposal["mediated_by_mlps"][layer],
        ]
        mark = "*" if layer in proposal["layers"] else " "
        cells = "".join(f"{'-':>16}" if v is None else f"{v:>16.3f}" for v in values)
        lines.append(f" {mark}{layer:>5}{cells}")
    lines.append("")
    if proposal["layers"]:
        lines.append(f"proposed (*): layers {', '.join(map(str, proposal['layers']))}")
        if proposal["setting"]:
            lines.append(f"try it with: --set {proposal['setting'].replace(' ', '')}")
    else:
        lines.append(
            f"no proposal: the MLPs at the {proposal['token']} bring about too little of the answer; "
            "try another method.look_up"
        )
    return "\n".join(map(shown, lines))
