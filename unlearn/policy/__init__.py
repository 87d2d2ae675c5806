"""Policies as documents: what may be written, how a file is read, and what every key means."""
