"""Loading, patching and saving: the model is put back bit for bit, and only the right patch goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests import pico
from tests.saving import save
from unlearn.algebra.low_rank import LowRank
from unlearn.errors import ModelError, PolicyError
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import ask, plain_prompt
from unlearn.patch import Patch


def some_patch(model: EditableModel, size: float = 0.3, layers: tuple[int, ...] = (1, 2)) -> Patch:
    torch.manual_seed(5)
    names = [model.anatomy.weight_name(layer) for layer in layers]
    factors = {n: LowRank(size * torch.randn(32, 3), torch.randn(3, 64)) for n in names}
    return Patch(factors, model.fingerprint(names))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", pico.FAMILIES)
def test_patched_changes_the_model_and_puts_it_back(family: str, dtype: torch.dtype) -> None:
    model = pico.pico(family, dtype)
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    prompt = torch.tensor([list(ask(model.tokenizer, "What is {subject}?", "Zorvex").ids)])
    old = model.model(prompt).logits
    with model.patched(some_patch(model)):
        assert not torch.equal(model.model(prompt).logits, old)
    assert torch.equal(model.model(prompt).logits, old)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.model.state_dict().items())


def test_an_error_inside_the_context_still_puts_it_back() -> None:
    model = pico.pico("llama")
    before = model.identity()
    with pytest.raises(KeyboardInterrupt), model.patched(some_patch(model)):
        assert model.identity() != before
        raise KeyboardInterrupt
    assert model.identity() == before


def test_the_wrong_model_a_wrong_shape_and_nonsense_are_refused_before_any_write() -> None:
    model, other = pico.pico("llama"), pico.pico("llama", seed=1)
    before = other.identity()
    with pytest.raises(ModelError, match="made for another model: 2 of 2"), other.patched(some_patch(model)):
        pass
    name = model.anatomy.weight_name(1)
    theirs = other.fingerprint([name])
    with (
        pytest.raises(ModelError, match="the patch for .* is"),
        other.patched(Patch({name: LowRank(torch.ones(3, 1), torch.ones(1, 64))}, theirs)),
    ):
        pass
    with (
        pytest.raises(ModelError, match="non-finite"),
        other.patched(Patch({name: LowRank(torch.full((32, 1), torch.inf), torch.ones(1, 64))}, theirs)),
    ):
        pass
    unhashed = replace(some_patch(other), base=theirs)
    with pytest.raises(ModelError, match="cannot be used: it has no hash of 1 of the 2 weights"):
        other.accepts(unhashed)
    with pytest.raises(ModelError, match="cannot be used: it has no hash of 2 of the 2 weights"):
        other.accepts(replace(unhashed, base={}))
    other.accepts(some_patch(other))  # the control
    assert other.identity() == before
    with model.patched(some_patch(model)), pytest.raises(ModelError, match="patched already"):
        with model.patched(some_patch(model)):
            pass


@pytest.mark.parametrize("family", pico.FAMILIES)
@pytest.mark.parametrize("storage", [torch.float32, torch.bfloat16])
def test_a_saved_model_answers_as_the_patched_one(family: str, storage: torch.dtype, tmp_path: Path) -> None:
    network = pico.network(family)
    for parameter in network.parameters():  # a checkpoint in ``storage``, computed in float32
        parameter.data = parameter.data.to(storage).float()
    model = EditableModel(network, pico.tokenizer(), "pico", storage)
    patch, prompt = some_patch(model), plain_prompt(model.tokenizer, "The colour of Velnar is")
    save(model, tmp_path / "edited", patch)
    with model.patched(patch):
        inside = model.model(torch.tensor([prompt.ids])).logits
        reply = model.generate([prompt], 8)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "edited", dtype=torch.float32).eval()
    assert torch.equal(loaded(torch.tensor([prompt.ids])).logits, inside)
    again = EditableModel.load(str(tmp_path / "edited"), dtype="float32", device="cpu")
    assert again.generate([prompt], 8) == reply
    assert again.storage_dtype == storage
    stored = AutoModelForCausalLM.from_pretrained(tmp_path / "edited")
    assert stored.dtype == storage
    plain = model.model(
        torch.tensor([prompt.ids])
    ).logits  # the control: the unedited model answers otherwise
    assert not torch.equal(plain, inside)


def test_batching_and_padding_do_not_change_a_reply() -> None:
    model = pico.pico("llama")
    prompts = [
        plain_prompt(model.tokenizer, text)
        for text in ("Z", "The colour of Velnar is", "Tell me what Quandel")
    ]
    together = model.generate(prompts, 6)
    assert together == [model.generate([prompt], 6)[0] for prompt in prompts]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_of_nan_says_nothing(temperature: float) -> None:
    model = pico.pico("llama")
    prompt = plain_prompt(model.tokenizer, "Zorvex is made from")
    assert model.generate([prompt], 3, temperature=temperature)
    model.weight(model.anatomy.weight_name(0)).fill_(torch.nan)
    with pytest.raises(ModelError, match="logits that are not finite"):
        model.generate([prompt], 3, temperature=temperature)


def test_sampling_is_seeded_and_leaves_the_global_generator_alone() -> None:
    model = pico.pico("llama")
    prompts = [plain_prompt(model.tokenizer, "The colour")]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = model.generate(prompts, 6, samples=4, temperature=1.0, seed=7)
    assert torch.equal(torch.rand(1), expected)
    assert first == model.generate(prompts, 6, samples=4, temperature=1.0, seed=7)
    assert first != model.generate(prompts, 6, samples=4, temperature=1.0, seed=8)
    assert len(first[0]) == 4


def test_a_reply_ends_with_the_context_and_a_longer_prompt_is_refused() -> None:
    model = pico.pico("gpt2")
    room = model.context
    (reply,) = model.generate_ids([[7] * (room - 2)], max_new_tokens=9)
    assert len(reply) <= 2
    with pytest.raises(ModelError, match=f"has {room} tokens .* takes {room}"):
        model.generate_ids([[7] * room], max_new_tokens=9)


def test_a_fingerprint_does_not_depend_on_the_dtype_in_use() -> None:
    stored = pico.network("llama").to(torch.bfloat16)
    low = EditableModel(stored, pico.tokenizer(), "low", torch.bfloat16)
    high = EditableModel(
        pico.network("llama").to(torch.bfloat16).float(), pico.tokenizer(), "high", torch.bfloat16
    )
    assert low.fingerprint() == high.fingerprint() and low.identity() == high.identity()
    assert low.fingerprint() != pico.pico("llama").fingerprint()


def test_a_dtype_that_cannot_hold_the_checkpoint_is_what_is_edited_and_saved(tmp_path: Path) -> None:
    folder = tmp_path / "bf16"
    pico.network("llama").to(torch.bfloat16).save_pretrained(folder)
    pico.tokenizer().save_pretrained(folder)
    for dtype, stored in (
        ("float32", torch.bfloat16),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
    ):
        model = EditableModel.load(str(folder), dtype=dtype)
        assert model.storage_dtype == stored
        save(model, tmp_path / dtype)
        again = AutoModelForCausalLM.from_pretrained(tmp_path / dtype)
        for name, weight in model.model.state_dict().items():
            assert torch.equal(again.state_dict()[name].float(), weight.float()), (dtype, name)


def test_loading_fails_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no folder .*nowhere") as caught:
        EditableModel.load(str(tmp_path / "nowhere"))
    assert "\n" not in str(caught.value)
    pico.network("olmoe").save_pretrained(tmp_path / "olmoe")
    pico.tokenizer().save_pretrained(tmp_path / "olmoe")
    with pytest.raises(ModelError, match="'olmoe' cannot be edited"):
        EditableModel.load(str(tmp_path / "olmoe"))
    for device in ("gpu", "", "cuda:x"):
        with pytest.raises(PolicyError, match="--device .*: use auto, cpu, cuda"):
            EditableModel.load(str(tmp_path / "llama"), device=device)
    with pytest.raises(PolicyError, match="--dtype int8"):
        pico.network("llama").save_pretrained(tmp_path / "llama")
        EditableModel.load(str(tmp_path / "llama"), dtype="int8")


def test_a_checkpoint_that_is_cut_off_or_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    pico.network("llama").save_pretrained(tmp_path)
    pico.tokenizer().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    assert EditableModel.load(str(tmp_path)).anatomy.layers
    name = "model.layers.1.mlp.down_proj.weight"
    save_file({key: tensor for key, tensor in whole.items() if key != name}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=rf"lacks 1 weights \(first: {name}\)"):
        EditableModel.load(str(tmp_path))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot load the model"):
        EditableModel.load(str(tmp_path))


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    model = pico.network("llama")
    model.config.save_pretrained(tmp_path)
    pico.tokenizer().save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        EditableModel.load(str(tmp_path))
