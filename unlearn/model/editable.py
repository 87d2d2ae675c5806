"""The class through which every edit changes a model's weights, and puts them back."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from unlearn.errors import ModelError
from unlearn.model import fourbit, identity
from unlearn.model.anatomy import Anatomy, context_of
from unlearn.model.applied import applied
from unlearn.model.continuing import continued_together
from unlearn.model.ends import Ends, tokens_of
from unlearn.model.fit import check_fit
from unlearn.model.generation import Decoding
from unlearn.model.guard import guarded
from unlearn.model.library import Network, Tokenizer
from unlearn.model.loading import loaded
from unlearn.model.offload import offloaded
from unlearn.model.placing import Origin
from unlearn.model.prompts import Prompt, closing_text
from unlearn.model.standing import Likeness, Note, Standing, unnoted
from unlearn.model.thinking import decoded
from unlearn.model.trial import rows_of
from unlearn.patch import Deltas
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.team import seated


class EditableModel:
    """A causal language model with its tokenizer, whose down-projections can be patched for a while.

    Attributes:
        model: the transformers model, in evaluation mode, without gradients on its parameters.
        tokenizer: its fast tokenizer.
        anatomy: family and sizes.
        name: what the user called it.
        storage_dtype: the dtype of the checkpoint, or the narrower one that it was loaded in. Patched weights are
            rounded to it, so that what is measured here is what a saved model answers (``fourbit``'s are not written).
        origin: how another process gets the same model; None for one that was made in this one.
    """

    def __init__(
        self, model: Network, tokenizer: Tokenizer, name: str, storage_dtype: torch.dtype | None = None
    ) -> None:
        """Wrap a loaded model; raises ModelError for an unknown family or a tokenizer without offset mappings."""
        if not tokenizer.is_fast:
            raise ModelError(
                f"{name}: its tokenizer has no fast version; look-up tokens need offset mappings"
            )
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.anatomy = Anatomy.of(model)
        self.name = name
        self.tokenizer_of = "auto"
        self.storage_dtype = storage_dtype or model.dtype
        self.origin: Origin | None = None
        self._likeness: Likeness | None = None
        self._patched = False

    @classmethod
    def load(
        cls,
        name: str,
        device: str = "auto",
        dtype: str = "auto",
        trust_remote_code: bool = False,
        made_in: str | None = None,
        tokenizer: str = "auto",
        device_map: str | None = None,
    ) -> EditableModel:
        """Load ``embedded``, ``embedded-control``, a local folder or a hub id, from safetensors only.

        What is not said here, `unlearn.load_model` and `unlearn.Placement` say.

        Args:
            made_in: the ``storage_dtype`` of a patch that is to go on it. Where it is narrower than the checkpoint's,
                that is what ``auto`` means: the patch knows only the weights that were rounded to it.
        """
        origin = Origin(name, device, dtype, trust_remote_code, made_in, tokenizer, device_map)
        model, made, storage_dtype = loaded(*origin)
        found = cls(model, made, name, storage_dtype)
        found.tokenizer_of, found.origin = tokenizer, origin
        if seated().leads:
            found._likeness = Likeness(model, origin, found.identity())
        return found

    def standing(self) -> Standing | None:
        """What to tell the other processes of this run, so that they have this model: with a task, which must follow.

        Returns:
            None where there are no others, or where they cannot have it as it stands.
        """
        return None if self._likeness is None else self._likeness.standing()

    def changing(self) -> AbstractContextManager[Note]:
        """Within it the model may be changed by whatever puts it back bit for bit (``Likeness.changing``)."""
        return nullcontext(unnoted) if self._likeness is None else self._likeness.changing()

    @property
    def device(self) -> torch.device:
        """Where rows of ids are put; of a model on several devices, where its embedding lies."""
        return self._first.device

    @property
    def offloaded(self) -> bool:
        """Whether some weights are on disk or in the host's memory while nothing is computed with them."""
        return offloaded(self.model)

    @property
    def quantised(self) -> str | None:
        """How many of its matrices are in which format of 4 bits, such as ``nf4 210``; None where none is."""
        return fourbit.described(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype it computes in."""
        return self._first.dtype

    @property
    def _first(self) -> Tensor:
        first: Tensor = next(self.model.parameters())
        return first

    @property
    def context(self) -> int:
        """Longest row that it takes, in tokens."""
        config = self.model.config.get_text_config()
        return context_of(config) or 1 << 30

    @property
    def vocabulary(self) -> int:
        """How many tokens its logits are about."""
        return int(self.model.config.get_text_config().vocab_size)

    def longest(self, rows: Sequence[Sequence[int]], spare: int = 0) -> int:
        """Tokens of the longest of some rows; 0 where there are none.

        Args:
            spare: tokens of the context that must be left behind them.

        Raises:
            ModelError: that is more than the model takes.
        """
        most = max(map(len, rows), default=0)
        if most + spare > self.context:
            raise ModelError(
                f"a prompt has {most} tokens with all that stands around it, and {self.name} takes {self.context}, "
                f"{spare} of them for what follows; shorten it, or the policy's `system`"
            )
        return most

    def weight(self, name: str) -> Tensor:
        """The matrix (d_out, d_in) of any weight inside a block: of a linear layer a view of the live parameter.

        Of experts, and of what is offloaded or quantised, it is a copy: what is written to it is lost (``overwrite``).
        """
        return self.anatomy.named(self.model, name)

    def shape(self, name: str) -> tuple[int, int]:
        """(d_out, d_in) of a weight matrix inside a block."""
        return self.anatomy.projection(self.model, name).shape

    @torch.no_grad()
    def overwrite(self, name: str, matrix: Tensor) -> None:
        """Write other numbers into a plain weight that is in memory, for an attack, which puts them back."""
        there = self.anatomy.projection(self.model, name)
        there.module.get_parameter(there.parameter).copy_(there.stored(matrix))

    def fingerprint(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """``Projection.sha256`` of editable weights in ``storage_dtype``; device and a wider dtype do not matter."""
        chosen = names or [self.anatomy.weight_name(layer) for layer in range(self.anatomy.layers)]
        there = {name: self.anatomy.projection(self.model, name) for name in chosen}
        return {name: matrix.sha256(self.storage_dtype) for name, matrix in there.items()}

    def weights_sha256(self) -> str:
        """One hash over every parameter and buffer of the model in ``storage_dtype``."""
        return identity.of_weights(self.model, self.anatomy.model_type, self.storage_dtype)

    def identity(self) -> str:
        """One hash over weights, configuration and end tokens: the key of caches of statistics and measurements."""
        computed, ends = identity.of_configuration(self.model.config), self.ends
        parts = (self.weights_sha256(), computed, sorted(ends.tokens), ends.text)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    @contextmanager
    def patched(self, patch: Deltas) -> Iterator[EditableModel]:
        """Apply a patch as ``applied`` does; on exit the model is bit-identical to before.

        Where the patch's header holds a system prompt, ``tokenizer`` is a guarded copy for as long: prompts that are
        built with it (``prompts.ask``, the chat template) begin with that text.

        Raises:
            ModelError: the patch was made for other weights, does not fit, or is not finite. Nothing is written then.
        """
        if self._patched:
            raise ModelError("this model is patched already; combine patches instead of nesting them")
        self.accepts(patch)
        tokenizer, system = self.tokenizer, patch.header.get("system")
        guard = guarded(tokenizer, str(system)) if system else tokenizer
        self._patched = True
        try:
            self.tokenizer = guard
            there = applied(self.model, self.anatomy, patch.factors, self.storage_dtype)
            with self.changing() as note, there:
                note(patch)
                yield self
        finally:
            self.tokenizer = tokenizer
            self._patched = False

    def accepts(self, patch: Deltas) -> None:
        """Raise ModelError if a patch was made for other weights, does not say for which, or does not fit these."""
        check_fit(self, patch)

    def generate(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int = 32,
        samples: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
        progress: Progress = NO_PROGRESS,
        label: str = "Generating",
    ) -> list[list[str]]:
        """What the model writes after each prompt: ``samples`` replies per prompt, without the prompt or markup.

        Marks of reasoning blocks stay (``unlearn.model.replies`` parts a reply by them).

        Args:
            max_new_tokens: length limit; a reply also ends at the end of turn or text. Of all, it is less where the
                longest prompt leaves less room.
            samples: replies per prompt; more than one needs a temperature.
            temperature: 0 is greedy.
            seed: of the sampling; the global generators are left as they were.

        Raises:
            ModelError: a prompt is too long, or the model's logits are not finite.
        """
        ids = [prompt.ids for prompt in prompts]
        got = self._continued(ids, Decoding(max_new_tokens, samples, temperature, seed), progress, label)
        ends = self.ends
        spoken = [ends.said(row) for rows in got for row in rows]
        texts = iter(decoded(self.tokenizer, spoken))
        return [[ends.spoken(next(texts)).strip() for _ in rows] for rows in got]

    def generate_ids(self, rows: Sequence[Sequence[int]], max_new_tokens: int = 32) -> list[tuple[int, ...]]:
        """Greedy continuations as ids, the end-of-turn token included, padding cut off."""
        return [got[0] for got in self._continued(rows, Decoding(max_new_tokens))]

    def sample_ids(
        self, rows: Sequence[Sequence[int]], max_new_tokens: int, samples: int = 1, seed: int = 0
    ) -> list[list[tuple[int, ...]]]:
        """Per row, continuations drawn from the model's own probabilities, as ids, as ``generate_ids`` gives them."""
        return self._continued(rows, Decoding(max_new_tokens, samples, 1.0, seed))

    def _continued(
        self,
        rows: Sequence[Sequence[int]],
        how: Decoding,
        progress: Progress = NO_PROGRESS,
        label: str = "Generating",
    ) -> list[list[tuple[int, ...]]]:
        longest = self.longest(rows, spare=1)
        how = replace(how, max_new_tokens=min(how.max_new_tokens, self.context - longest))
        ends = self.ends
        return continued_together(self.model, self._likeness, rows, self.pad_id, ends, how, progress, label)

    @property
    def ends(self) -> Ends:
        """What ends a reply: by the generation config, the tokenizer, and what the chat template closes a turn with."""
        stated = self.model.generation_config.eos_token_id
        return Ends.of(stated, self.tokenizer, closing_text(self.tokenizer))

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Within it, the model's generation config names all of its end tokens."""
        kept = self.model.generation_config
        self.model.generation_config = copy.deepcopy(kept)
        if self.ends.tokens != tokens_of(kept.eos_token_id):
            self.model.generation_config.eos_token_id = self.ends.configured()
        try:
            yield
        finally:
            self.model.generation_config = kept

    @property
    def pad_id(self) -> int:
        """An id to pad with; it is always masked, so any id does for which the embedding has a row."""
        for candidate in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if candidate is not None and candidate < rows_of(self.model):
                return int(candidate)
        return 0
