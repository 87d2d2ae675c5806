"""The demo scorer: its sentences and its training."""
