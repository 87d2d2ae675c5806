"""zsRE: rewrite the answers to questions, and measure the share of right tokens, on a rephrasing, and elsewhere.

    python benchmarks/zsre.py --model FOLDER --facts FILE --corpus FILE --methods alphaedit,memit --json OUT

Success is teacher-forced token accuracy, as published; the neighbourhood is judged against the file's own answer, so
the unedited model's value (`before`) is the most that can be expected.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # called as a script: the package `benchmarks` lies in the folder above
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import metrics  # noqa: E402
from benchmarks.command import main  # noqa: E402
from benchmarks.records import load_zsre  # noqa: E402

if __name__ == "__main__":
    text = (
        "zsRE: token accuracy of the new answer, on a rephrased question, and of an unrelated one (percent)."
    )
    sys.exit(main("zsre", text, load_zsre, metrics.zsre))
