"""`python -m unlearn` is the same command as `unlearn`, which starts here."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; a Ctrl-C that comes while its libraries are being imported is a sentence as well."""
    try:
        from unlearn.cli import main as run
    except KeyboardInterrupt:
        exec("")  # as in cli.run: else Python may end by killing itself, whatever the exit code
        if sys.stderr is not None:
            sys.stderr.write("unlearn: interrupted; nothing was written\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
