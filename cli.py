"""Launcher for a checkout: `python cli.py` is the same command as `unlearn`."""

from unlearn.__main__ import main

if __name__ == "__main__":
    main()
