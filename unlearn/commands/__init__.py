"""One file per command. They import torch only when they run, so that `--help` and `check` answer at once."""
