"""`python -m unlearn` is the same command as `unlearn`, which starts here."""

from __future__ import annotations

import sys

from unlearn import signals, streams, threads


def main() -> None:
    """Run the command line; a Ctrl-C that comes while its libraries are being imported is a sentence as well."""
    signals.settle()
    streams.settle()
    threads.settle()
    try:
        with signals.raising():
            from unlearn.cli import main as run
    except (KeyboardInterrupt, signals.Terminated) as left:
        exec("")  # as in cli.run: else Python may end by killing itself, whatever the exit code
        number = signals.ended_by(left)
        sys.stderr.write(f"unlearn: {signals.WORDS[number]}; nothing was written\n")
        sys.exit(128 + number)
    run()


if __name__ == "__main__":
    main()
