"""The policy as training sees it: packed ids in, log-probs of the response tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from stepcoder.errors import DataError
from stepcoder.model import attention
from stepcoder.model.attention import Layout
from stepcoder.model.batch import Packed, pack
from stepcoder.model.decoding import Decoding
from stepcoder.model.head import ScoringHead


class Policy(nn.Module):
    """Wraps a causal language model so that only the rows that are scored go through its LM head."""

    def __init__(self, language_model: PreTrainedModel, head_chunk_mib: float = 64) -> None:
        """Wraps the model.

        Args:
            language_model: the model; its attention learns to read packed sequences.
            head_chunk_mib: memory for the logits of one chunk of rows, in MiB.

        Raises:
            DataError: its logits are not the LM head's output (soft-capping, scaling), or it cannot read packed
                sequences.
        """
        super().__init__()
        check_packing(language_model)
        self.language_model = language_model
        self.head = ScoringHead(language_model.get_output_embeddings(), head_chunk_mib)

    def forward(
        self, packed: Packed, temperature: float = 1.0, *, entropy: bool = False
    ) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"] | None]:
        """Log-prob of the response tokens, and entropy, under the sampling distribution, in float32.

        Args:
            packed: sequences.
            temperature: sampling temperature; logits are divided by it.
            entropy: whether it is wanted; it has no gradient.

        Returns:
            Log-prob and, if wanted, entropy of each of `packed.targets`; they come from the state before it.
        """
        hidden = states(self.language_model.base_model, packed)
        scored: tuple[Tensor, Tensor | None] = self.head(hidden, packed.targets, temperature, entropy=entropy)
        return scored

    def gradient_checkpointing_enable(self) -> None:
        """Passes the setting on to the language model."""
        self.language_model.gradient_checkpointing_enable()


def states(backbone: nn.Module, packed: Packed) -> Float[Tensor, "tokens hidden"]:
    """The hidden state before every response token."""
    output = backbone(
        input_ids=packed.input_ids.unsqueeze(0),
        position_ids=packed.position_ids.unsqueeze(0),
        use_cache=False,
        layout=packed.layout,
    )
    hidden: Tensor = output.last_hidden_state[0, packed.rows]
    return hidden


@torch.no_grad()
def check_packing(model: PreTrainedModel) -> None:
    """Switches a language model to packed attention, and checks it against the model's own way, also in sampling.

    Raises:
        DataError: hidden states or logits of packed sequences are not those of the sequences by themselves; the model
            is then as it was.
    """
    former = model.config._attn_implementation
    if former == attention.NAME:
        return  # Checked when it was switched.
    try:
        _switch(model)
    except DataError:
        model.set_attn_implementation(former)
        raise


def _switch(model: PreTrainedModel) -> None:
    vocabulary = model.get_input_embeddings().weight.shape[0]
    a, b, c, d = ([index % vocabulary for index in range(begin, begin + 3)] for begin in (1, 4, 7, 10))
    # A prompt with two responses, and one with one.
    sequences = [[*a, *b], [*a, *c], [*c, *d]]
    whole = (torch.tensor([ids], device=model.device) for ids in sequences)
    alone = torch.stack([model(input_ids=ids, use_cache=False).logits[0, 2:-1] for ids in whole])
    what = f"{model.name_or_path}: {type(model).__name__}"
    try:
        model.set_attn_implementation(attention.NAME)
        packed = pack([(a, [b, c]), (c, [d])], model.device)
        in_training = model.get_output_embeddings()(states(model.base_model, packed)).view_as(alone)
        in_sampling = _token_by_token(model, a, c, [b, c, d])
    except (ValueError, TypeError, AttributeError, RuntimeError, LookupError) as error:
        raise DataError(f"{what} cannot read packed sequences: {error}") from error
    if not (_alike(in_training, alone) and _alike(in_sampling, alone)):
        raise DataError(
            f"{what} gives other logits for packed sequences than by itself (it changes its logits after the LM head, "
            "or its attention cannot be told where a sequence ends); use another base model"
        )


def _alike(ours: Tensor, theirs: Tensor) -> bool:
    """Whether logits differ by no more than rounding explains."""
    ours, theirs, precise = ours.float(), theirs.float(), theirs.dtype.itemsize >= 4
    spread = theirs.std().item()
    if precise:  # A young model attends so little that a wrong neighbour shows in hardly more than this.
        return torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * spread + 1e-6)
    # Kernels round in different places: 1 % was seen after eight layers, and it grows with the root of their number.
    return (ours - theirs).square().mean().sqrt().item() <= 0.1 * spread


def _token_by_token(
    model: PreTrainedModel, a: list[int], c: list[int], responses: Sequence[list[int]]
) -> Float[Tensor, "3 3 vocabulary"]:
    """The logits before each token of two responses to `a` and one to `c`, as sampling computes them."""
    decoding = Decoding(model, [len(a), len(c)], [2, 1], len(responses[0]))
    ids, positions = ([[*a, *c]], [[*range(len(a)), *range(len(c))]])
    kept = torch.tensor([len(a) - 1, len(a) + len(c) - 1], device=model.device)
    more: dict[str, Any] = {"layout": Layout(((len(a), ()), (len(c), ()))), "logits_to_keep": kept}
    found = []
    for place in range(len(responses[0])):
        inputs = (torch.tensor(one, device=model.device) for one in (ids, positions))
        named = dict(zip(("input_ids", "position_ids"), inputs, strict=True))
        logits = model(**named, decoding=decoding, past_key_values=decoding.cache, use_cache=True, **more).logits
        found.append(logits[:, 0] if place else logits[0, decoding.origin])
        ids, positions, more = [[one[place]] for one in responses], [[len(a) + place]] * 3, {}
    return torch.stack(found, 1)
