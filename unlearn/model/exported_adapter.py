"""A patch of a quantised model as a LoRA adapter in the format of `peft`, which computes what was measured.

The edited weights themselves could not be saved in 4 bits: rounded to the few values of a block, they would lose most
of the update.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from unlearn.errors import ModelError
from unlearn.model.editable import EditableModel
from unlearn.model.ends import Ends
from unlearn.model.merged import INSIDE, WEIGHTS
from unlearn.patch import Patch


def export_adapter(model: EditableModel, patch: Patch, target: Path) -> Ends:
    """Write an adapter that ``peft.PeftModel.from_pretrained`` puts on the quantised model, and the tokenizer.

    Args:
        model: the quantised base, unpatched.
        patch: made for it. Its factors are written as they are, with a scaling of 1: ``lora_A`` is the right one,
            (n, d_in), ``lora_B`` the left one, (d_out, n).
        target: a folder to write into.

    Returns:
        What ends a reply of the model.

    Raises:
        ModelError: the model is not quantised, or the patch was made for other weights, does not fit, is not finite, or
            changes no weight.
    """
    from peft import LoraConfig

    if model.quantised is None:
        raise ModelError(
            f"{model.name} is not quantised, so that its edited weights can be written as they were measured; leave "
            "--adapter out"
        )
    if not patch.factors:
        raise ModelError("this patch changes no weights, so there is nothing to write into an adapter")
    with model.patched(patch):
        model.tokenizer.save_pretrained(target)
        ends = model.ends
    ranks = {name.removesuffix(".weight"): delta.rank for name, delta in patch.factors.items()}
    largest = max(ranks.values())
    config = LoraConfig(
        r=largest,
        lora_alpha=largest,
        rank_pattern=ranks,
        alpha_pattern=ranks,
        target_modules=list(ranks),
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=model.name,
        inference_mode=True,
    )
    config.save_pretrained(str(target))
    tensors = {}
    for name, delta in patch.factors.items():
        path = f"{INSIDE}{name.removesuffix('.weight')}"
        tensors[f"{path}.lora_A.weight"] = delta.right.float().cpu().contiguous()
        tensors[f"{path}.lora_B.weight"] = delta.left.float().cpu().contiguous()
    save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
    return ends
