"""The types of the library that models come from, by the names that are used here.

The library is read when a model is loaded, and no sooner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

Network: TypeAlias = "PreTrainedModel"
"""A causal language model of transformers."""
Configuration: TypeAlias = "PreTrainedConfig"
"""Its configuration."""
Tokenizer: TypeAlias = "PreTrainedTokenizerFast"
"""A fast tokenizer: offset mappings are needed."""
