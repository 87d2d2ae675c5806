"""Forget three facts of the model that ships with unlearn, audit the edit, and compare it with LoRA.

python examples/forget.py
"""

from __future__ import annotations

from pathlib import Path

import unlearn

POLICY = Path(__file__).with_name("forget.yaml")
STEPS = "30"  # of the LoRA training: enough for three facts
SHOWN = ("leak.held_out", "refusal.held_out", "retain.siblings", "retain.neighbours", "drift.kl")


def main() -> None:
    """Edit and audit with two methods, and print a row for each."""
    policy = unlearn.load_policy(POLICY)
    model = unlearn.load_model(policy.model)
    requests = unlearn.resolve(model, policy)
    print(f"{'':<18}" + "".join(f"{name:>20}" for name in SHOWN) + f"{'verdict':>10}")
    lora = unlearn.load_policy(POLICY, {"method.name": "lora", "method.steps": STEPS}).method
    for name, method in (("alphaedit", policy.method), ("lora", lora)):
        asked = requests.under(method=method)
        patch = unlearn.edit(model, asked)
        report = unlearn.audit(model, patch, asked)
        found = {measured.name: measured for measured in report.measurements}
        if name == "alphaedit":
            print(row("unedited model", [found[each].before for each in SHOWN]))
        print(row(name, [found[each].after for each in SHOWN]) + f"{report.verdict:>10}")
        for missed in report.failures:
            print(f"    {missed.name} is {missed.after}, limit: {missed.rule} {missed.limit}")


def row(label: str, values: list[float | None]) -> str:
    """A line of the table; a dash stands for what is about two models, and is not measured on one."""
    return f"{label:<18}" + "".join(
        f"{'-' if value is None else format(value, '.3f'):>20}" for value in values
    )


if __name__ == "__main__":
    main()
