"""`python -m unlearn` is the same command as `unlearn`."""

from __future__ import annotations

from unlearn.cli import main

if __name__ == "__main__":
    main()
