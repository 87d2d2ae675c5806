"""The table and the picture of `unlearn trace`; importing this imports torch and matplotlib."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from unlearn.charts import Heat, Line, Panel, heat_maps
from unlearn.model import traced
from unlearn.model.trace_summary import Average
from unlearn.shown import shown


def picture(found: Average, described: dict[str, Any]) -> Figure:
    """Heat maps of states, MLP and attention outputs, and the curves with parts severed."""
    window = described["window"]
    over = f"{window} layers" if window > 1 else "1 layer"
    titles = {
        traced.STATE: "Hidden state",
        traced.MLP: f"MLP outputs, {over}",
        traced.ATTENTION: f"Attention outputs, {over}",
    }
    role = described["proposal"]["token"]
    row = traced.ROLES.index(role)
    names = {
        traced.STATE: "state restored",
        traced.NO_MLP: "state restored, MLPs severed",
        traced.NO_ATTENTION: "state restored, attention severed",
    }
    lines = []
    for kind, name in names.items():
        mean, error = found.effects[kind][row], 1.96 * found.errors[kind][row]
        known = not bool(error.isnan().any())
        low, high = ((mean - error).tolist(), (mean + error).tolist()) if known else ((), ())
        lines.append(Line(name, list(range(len(mean))), mean.tolist(), low, high))
    return heat_maps(
        [Heat(title, found.effects[kind].tolist()) for kind, title in titles.items()],
        traced.ROLES,
        Panel(f"At the {role}", lines),
        described["proposal"]["layers"],
        f"Causal trace of {described['policy']} on {described['model']}: average indirect effect over "
        f"{described['prompts']} prompts; clean {found.clean:.2f}, with noise {found.corrupted:.2f}",
    )


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
