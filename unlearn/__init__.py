"""unlearn: make a language model stop answering what a policy forbids, and measure what that cost.

The way through is `load_policy` -> `resolve` -> `edit` -> a Patch -> `observe` before and after -> `compare` -> a
Report. The command line (`unlearn.cli`) walks it in one go. Importing this package imports nothing heavy.
"""

from __future__ import annotations

__version__ = "0.1.0"
