"""CounterFact: rewrite facts, and measure the new object, its paraphrases and its neighbours.

    python benchmarks/counterfact.py --model FOLDER --facts FILE --corpus FILE --methods alphaedit,memit --json OUT

The metrics are in `metrics.py`, what the edit may see in `asking.py`, what the file holds in `records.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # called as a script: the package `benchmarks` lies in the folder above
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import metrics  # noqa: E402
from benchmarks.command import main  # noqa: E402
from benchmarks.records import load_counterfact  # noqa: E402

if __name__ == "__main__":
    text = "CounterFact: efficacy, paraphrase, neighbourhood, score, fluency, drift (percent; success as published)."
    sys.exit(main("counterfact", text, load_counterfact, metrics.counterfact))
