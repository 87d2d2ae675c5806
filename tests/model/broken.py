"""Folders of models that are broken, and what the error has to name; and folders that are unusual, and load.

Rows are ``name: (damage, pattern)``; the pattern is found in the one sentence that loading ends in.
"""

from __future__ import annotations

import torch

from tests.model.damage import (
    CONFIG,
    GENERATION,
    SAID,
    TOKENIZER,
    Damage,
    added,
    both,
    changed,
    cut,
    folder_for,
    gone,
    holding,
    in_tokenizer,
    linked,
    longer,
    moved,
    nested,
    pickled,
    pipe_for,
    prefixed,
    sharded,
    tensors,
    without,
)

Row = tuple[Damage, str]

CONFIGS: dict[str, Row] = {
    "empty": (holding(CONFIG, ""), "config.json is not JSON"),
    "cut off": (cut(CONFIG), "config.json is not JSON"),
    "a list": (holding(CONFIG, "[1, 2]"), "config.json: it should hold one JSON object"),
    "a number": (holding(CONFIG, "7"), "config.json: it should hold one JSON object"),
    "a byte order mark": (prefixed(CONFIG, b"\xef\xbb\xbf"), "config.json begins with a byte order mark"),
    "UTF-16": (holding(CONFIG, "{}".encode("utf-16")), "config.json is UTF-16"),
    "no text": (holding(CONFIG, b"\xff\x00\xfe"), "config.json"),
    "nested without end": (holding(CONFIG, nested(200_000)), "config.json cannot be read: it is nested"),
    "no model type": (without(CONFIG, "model_type"), "model_type is missing"),
    "a model type of no text": (changed(CONFIG, model_type=7), "model_type is missing"),
    "an unknown model type": (changed(CONFIG, model_type="llama9"), "config.json.*llama9"),
    "another family's": (changed(CONFIG, model_type="mamba"), "'mamba' cannot be edited"),
    "experts": (changed(CONFIG, model_type="olmoe"), "mixtures of experts"),
    "another known family's": (changed(CONFIG, model_type="gpt2"), "lacks 52 weights"),
    "its own code": (
        changed(CONFIG, model_type="other", auto_map={"AutoConfig": "other.Config"}),
        "config.json: .*--trust-remote-code",
    ),
    "missing": (gone(CONFIG), "config.json cannot be read: No such file"),
    "a folder": (folder_for(CONFIG), "config.json cannot be read: it is a folder"),
    "a pipe": (pipe_for(CONFIG), "config.json cannot be read: it is a pipe"),
    "a device": (linked(CONFIG, "/dev/zero"), "config.json cannot be read: it is a device"),
    "a link to itself": (linked(CONFIG, CONFIG), "config.json cannot be read: Too many levels"),
    "a link to nothing": (linked(CONFIG, "nowhere"), "config.json cannot be read: No such file"),
    "100,000 layers": (changed(CONFIG, num_hidden_layers=100_000), "num_hidden_layers is 100000"),
    "5,000 layers": (changed(CONFIG, num_hidden_layers=5000), "num_hidden_layers is 5,000.*only .* tensors"),
    "one layer too many": (changed(CONFIG, num_hidden_layers=5), "lacks 9 weights"),
    "one layer too few": (
        changed(CONFIG, num_hidden_layers=3),
        "config.json: num_hidden_layers is 3, and the weights go on with model.layers.3",
    ),
    "no layers": (changed(CONFIG, num_hidden_layers=0), "num_hidden_layers is 0"),
    "negative layers": (changed(CONFIG, num_hidden_layers=-1), "num_hidden_layers is -1"),
    "layers as text": (changed(CONFIG, num_hidden_layers="4"), "num_hidden_layers is '4'"),
    "half a layer": (changed(CONFIG, num_hidden_layers=4.5), "num_hidden_layers is 4.5"),
    "layers that are true": (changed(CONFIG, num_hidden_layers=True), "num_hidden_layers is True"),
    "layers that are null": (changed(CONFIG, num_hidden_layers=None), "num_hidden_layers is None"),
    "a width that is absurd": (changed(CONFIG, hidden_size=2**30), "hidden_size is 1,073,741,824.*weights"),
    "a width above all numbers": (changed(CONFIG, hidden_size=10**30), "hidden_size is 1000000000000000000"),
    "a width of 0": (changed(CONFIG, hidden_size=0), "hidden_size is 0"),
    "a width that is no number": (changed(CONFIG, hidden_size=float("nan")), "hidden_size is nan"),
    "an inner width that is absurd": (
        changed(CONFIG, intermediate_size=10**8),
        "intermediate_size is 100,000",
    ),
    "a vocabulary that is absurd": (changed(CONFIG, vocab_size=10**9), "vocab_size is 1,000,000,000"),
    "a vocabulary one too small": (changed(CONFIG, vocab_size=384), "embed_tokens.weight has the shape"),
    "a width that is not the weights'": (
        changed(CONFIG, hidden_size=64, head_dim=16),
        "has the shape .*, and by .*config.json it has",
    ),
    "heads that do not divide": (changed(CONFIG, num_attention_heads=3, head_dim=None), "3 attention heads"),
    "heads that do not share": (changed(CONFIG, num_key_value_heads=3), "3 heads of keys and values"),
    "no heads": (changed(CONFIG, num_attention_heads=0), "num_attention_heads is 0"),
    "a length of 0": (changed(CONFIG, max_position_embeddings=0), "max_position_embeddings is 0"),
    "an unknown activation": (changed(CONFIG, hidden_act="swoosh"), "config.json.*swoosh"),
    "a kind of rope that is none": (
        changed(CONFIG, rope_parameters={"rope_type": "odd", "rope_theta": 1e4}),
        "config.json.*odd",
    ),
    "rope as a list": (changed(CONFIG, rope_parameters=[1, 2]), "config.json"),
    "rope without its factor": (
        changed(CONFIG, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}),
        "config.json",
    ),
    "rope that is no number": (
        changed(CONFIG, rope_parameters={"rope_type": "default", "rope_theta": float("nan")}),
        "not finite",
    ),
    "an epsilon that is text": (changed(CONFIG, rms_norm_eps="tiny"), "config.json"),
    "an epsilon that is no number": (changed(CONFIG, rms_norm_eps=float("nan")), "not finite"),
    "a padding id outside": (
        changed(CONFIG, pad_token_id=5000),
        "pad_token_id is 5000, and .* 385 rows",
    ),
    "an end that is text": (changed(CONFIG, eos_token_id="end"), "config.json: eos_token_id is 'end'"),
    "a dtype that is none": (changed(CONFIG, dtype="float33"), "config.json: dtype is 'float33'"),
    "a dtype of integers": (changed(CONFIG, torch_dtype="int8"), "config.json: torch_dtype is 'int8'"),
    "a dtype of 8 bits": (changed(CONFIG, dtype="float8_e4m3fn"), "config.json: dtype is 'float8_e4m3fn'"),
    "a dtype as torch writes it": (changed(CONFIG, dtype="torch.float32"), "dtype is 'torch.float32'"),
    "a dtype that is a number": (changed(CONFIG, dtype=16), "config.json: dtype is 16"),
    "a kernel of the hub": (
        changed(CONFIG, _attn_implementation="kernels-community/flash-attn"),
        "_attn_implementation asks for 'kernels-community/flash-attn'.*sdpa or eager",
    ),
    "a kernel of the hub without underscore": (
        changed(CONFIG, attn_implementation="somebody/kernel@main:f"),
        "attn_implementation asks for 'somebody/kernel@main:f'",
    ),
    "kernels by part": (
        changed(CONFIG, _attn_implementation={"": "kernels-community/flash-attn"}),
        "_attn_implementation asks for",
    ),
    "attention of a package": (changed(CONFIG, attn_implementation="flash_attention_2"), "sdpa or eager"),
    "GPTQ": (
        changed(CONFIG, quantization_config={"quant_method": "gptq", "bits": 4}),
        r"config.json: quantization_config \(gptq\).*unlearn export",
    ),
    "AWQ": (changed(CONFIG, quantization_config={"quant_method": "awq"}), r"quantization_config \(awq\)"),
    "bitsandbytes": (changed(CONFIG, quantization_config={"load_in_4bit": True}), "quantization_config:"),
    "quantised inside": (
        changed(CONFIG, text_config={"quantization_config": {"quant_method": "fp8"}}),
        r"quantization_config \(fp8\)",
    ),
    "another file of weights": (
        both(changed(CONFIG, transformers_weights="adapter_model.bin"), pickled("adapter_model.bin")),
        "transformers_weights names another file",
    ),
}
"""What may be wrong with ``config.json``."""


TOKENIZERS: dict[str, Row] = {
    "none": (gone(TOKENIZER, SAID), "has no tokenizer"),
    "no rules": (gone(TOKENIZER), "has no tokenizer"),
    "empty": (holding(TOKENIZER, ""), "tokenizer.json"),
    "cut off": (cut(TOKENIZER), "tokenizer.json"),
    "a list": (holding(TOKENIZER, "[]"), "tokenizer.json"),
    "an object of nothing": (holding(TOKENIZER, "{}"), "tokenizer.json"),
    "a model that is none": (in_tokenizer(lambda held: held["model"].update(type="Odd")), "tokenizer.json"),
    "no model": (in_tokenizer(lambda held: held.pop("model")), "tokenizer.json"),
    "a vocabulary that is a list": (
        in_tokenizer(lambda held: held["model"].update(vocab=[1, 2])),
        "tokenizer.json",
    ),
    "merges of what is no token": (
        in_tokenizer(lambda held: held["model"].update(merges=["q q"])),
        "tokenizer.json",
    ),
    "a pre-tokenizer that is none": (
        in_tokenizer(lambda held: held.update(pre_tokenizer={"type": "Odd"})),
        "tokenizer.json",
    ),
    "negative ids": (
        in_tokenizer(lambda held: held["model"]["vocab"].update({"odd": -1})),
        "tokenizer.json",
    ),
    "an id far outside": (in_tokenizer(moved), "writes the id 5000 .*385 rows"),
    "a larger vocabulary": (in_tokenizer(longer), r"writes the id 4\d\d .*385 rows"),
    "an end outside": (
        both(
            in_tokenizer(lambda held: held["added_tokens"].append(added("<|far|>", 999))),
            changed(SAID, eos_token="<|far|>"),
        ),
        r"\(eos_token\).*385 rows",
    ),
    "a turn's token outside": (
        both(
            in_tokenizer(lambda held: held["added_tokens"].append(added("<|far|>", 999))),
            holding("chat_template.jinja", "{{ messages[0].content }}<|far|>"),
        ),
        "writes the id 385 .*its chat template",
    ),
    "settings cut off": (cut(SAID), "tokenizer_config.json is not JSON"),
    "settings that are a list": (holding(SAID, "[]"), "tokenizer_config.json: it should hold"),
    "settings with a byte order mark": (prefixed(SAID, b"\xef\xbb\xbf"), "tokenizer_config.json begins with"),
    "its own code": (
        changed(SAID, tokenizer_class="Odd", auto_map={"AutoTokenizer": ["odd.Odd", "odd.Odd"]}),
        "tokenizer.json: .*--trust-remote-code",
    ),
    "a token that is a number": (changed(SAID, eos_token=7), "tokenizer.json: Special token eos_token"),
    "a folder": (folder_for(TOKENIZER), "tokenizer.json cannot be read: it is a folder"),
    "a pipe": (pipe_for(TOKENIZER), "tokenizer.json cannot be read: it is a pipe"),
    "a device": (linked(SAID, "/dev/zero"), "tokenizer_config.json cannot be read: it is a device"),
}
"""What may be wrong with the tokenizer."""

OTHERS: dict[str, Row] = {
    "a generation config cut off": (cut(GENERATION), "generation_config.json is not JSON"),
    "a generation config that is a list": (
        holding(GENERATION, "[]"),
        "generation_config.json: it should hold",
    ),
    "a generation config's start beyond 64 bits": (
        changed(GENERATION, bos_token_id=2**70),
        "generation_config.json: bos_token_id is 1180591620717411303424",
    ),
    "a generation config's end as text": (
        changed(GENERATION, eos_token_id="end"),
        "generation_config.json: eos_token_id is 'end'",
    ),
    "a generation config's ends as text": (
        changed(GENERATION, eos_token_id=[1, "end"]),
        "generation_config.json: eos_token_id is",
    ),
    "a generation config that is a pipe": (
        pipe_for(GENERATION),
        "generation_config.json cannot be read: it is a pipe",
    ),
    "a template that is a folder": (
        folder_for("chat_template.jinja"),
        "chat_template.jinja cannot be read: it is a folder",
    ),
    "a template that is a pipe": (
        pipe_for("chat_template.jinja"),
        "chat_template.jinja cannot be read: it is a pipe",
    ),
    "a template that is no text": (holding("chat_template.jinja", b"\xff\xfe\xfd"), "chat_template.jinja"),
}
"""What may be wrong with the other files."""

RIGHT: dict[str, Damage] = {
    "as it is": lambda _: None,
    "in shards": sharded(lambda _: None),
    "a tensor more": tensors(lambda held: held.update({"model.layers.0.rotary.inv_freq": torch.ones(4)})),
    "attention masks as bytes": tensors(
        lambda held: held.update({"model.mask.bias": torch.ones(4, dtype=torch.bool)})
    ),
    "a padding id of -1": changed(CONFIG, pad_token_id=-1),
    "no dtype": without(CONFIG, "dtype"),
    "a dtype under its old name": both(without(CONFIG, "dtype"), changed(CONFIG, torch_dtype="float32")),
    "code that is not needed": changed(CONFIG, auto_map={"AutoConfig": "odd.Odd"}),
    "plain attention": changed(CONFIG, attn_implementation="eager"),
    "no quantisation": changed(CONFIG, quantization_config=None),
    "no generation config": gone(GENERATION),
    "several ends": changed(GENERATION, eos_token_id=[1, 2]),
    "no end": changed(SAID, eos_token=None),
    "a class of tokenizers that nobody knows": changed(SAID, tokenizer_class="OddTokenizer"),
    "a padding token outside": both(
        in_tokenizer(lambda held: held["added_tokens"].append(added("[PAD]", 385))),
        changed(SAID, pad_token="[PAD]"),
    ),
    "a pickle beside the weights": pickled("pytorch_model.bin"),
    "sentences beside them": holding("README.txt", "Trained on nothing."),
}
"""Folders that are unusual, and load."""
