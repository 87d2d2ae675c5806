"""Models in 4 bits, made in the test, and what they stand for; without bitsandbytes the tests are skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pico
from unlearn.errors import ModelError
from unlearn.model import fourbit
from unlearn.model.editable import EditableModel


def installed() -> bool:
    try:
        fourbit.library()
    except ModelError:
        return False
    return True


needed = pytest.mark.skipif(not installed(), reason="needs bitsandbytes: pip install 'unlearn[quantised]'")


def quantised(network: Any, folder: Path, kind: str = "nf4", nested: bool = False, **more: Any) -> Path:
    """Write a network's folder in 4 bits."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    plain = folder.with_name(f"{folder.name}-plain")
    network.save_pretrained(plain)
    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=nested,
        bnb_4bit_compute_dtype=torch.bfloat16,
        **more,
    )
    made = AutoModelForCausalLM.from_pretrained(plain, quantization_config=how, device_map={"": "cpu"})
    made.save_pretrained(folder)
    pico.tokenizer().save_pretrained(folder)
    return folder


def dense(model: EditableModel, network: Any) -> EditableModel:
    """The reference: a plain model whose matrices are what those of a quantised one stand for.

    Args:
        network: plain, of the same configuration.
    """
    whole = dict(model.model.named_parameters())
    packed = {f"{path}.weight": fourbit.matrix(module) for path, module in fourbit.packed(model.model)}
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            new = packed.get(name, whole[name])
            turned = new.T if name in packed and "c_" in name else new
            parameter.copy_(turned)
    return EditableModel(network, model.tokenizer, f"dense-{model.name}", torch.float32)
