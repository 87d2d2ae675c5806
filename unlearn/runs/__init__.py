"""Run directories: their files, hashes and exchange."""
