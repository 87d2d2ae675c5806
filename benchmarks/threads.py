"""How OpenMP's threads should wait, alone and beside a busy core: `python -m benchmarks.threads [BUSY]`.

Seconds of many small and of few large matrix products, in a process of its own for each setting, since the library
reads its settings once. BUSY is the number of cores that something else keeps busy meanwhile (0 if it is not given).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

SETTINGS = {
    "as it comes": {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
LOADS = {"small": (64, 256, 768, 4500), "large": (1024, 576, 1536, 180)}
"""Rows, width, outputs, and how many products."""


def timed(load: str) -> float:
    """Seconds of a load in this process."""
    import torch

    rows, width, outputs, count = LOADS[load]
    left, right = torch.randn(rows, width), torch.randn(width, outputs)
    begin = time.monotonic()
    for _ in range(count):
        torch.nn.functional.silu(left @ right)
    return time.monotonic() - begin


def main(busy: int) -> None:
    free = {name: v for name, v in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        for load in LOADS:
            for name, setting in SETTINGS.items():
                again = [sys.executable, "-m", "benchmarks.threads", load]
                done = subprocess.run(again, env=free | setting, capture_output=True, text=True, check=True)
                print(f"{load:<6} {name:<24} {float(done.stdout):6.2f} s", flush=True)
    finally:
        for other in others:
            other.kill()


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "0"
    if given in LOADS:
        print(timed(given))
    else:
        main(int(given))
