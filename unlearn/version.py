"""The version of this program; everything that writes a document says it."""

from __future__ import annotations

__version__ = "0.1.0"
