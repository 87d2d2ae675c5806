"""The standard editing benchmarks with the standard metrics; no test depends on their times."""
