"""The policy as training sees it: ids in, log-probs of the response tokens out."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from stepcoder.errors import DataError


class Policy(nn.Module):
    """Wraps a causal language model so that only the rows that are scored go through its LM head."""

    def __init__(self, language_model: PreTrainedModel) -> None:
        """Wraps the model.

        Raises:
            DataError: its logits are not the LM head's output (soft-capping, scaling).
        """
        super().__init__()
        self.language_model = language_model
        self._check_head()

    def forward(
        self,
        input_ids: Int[Tensor, "batch length"],
        attention_mask: Int[Tensor, "batch length"],
        rows: Int[Tensor, " tokens"],
        temperature: float = 1.0,
    ) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"]]:
        """Log-prob and entropy of chosen tokens under the sampling distribution, in float32.

        Args:
            input_ids: right-padded sequences.
            attention_mask: 1 for tokens, 0 for padding.
            rows: flat indices into `batch * length` of the tokens that are scored; none is the first of its sequence.
            temperature: sampling temperature; logits are divided by it.

        Returns:
            Log-prob and entropy of each row. The log-prob of a token comes from the hidden state before it.
        """
        backbone = self.language_model.base_model
        hidden = backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        logits = self.language_model.get_output_embeddings()(hidden.flatten(0, 1)[rows - 1]).float() / temperature
        scores = torch.log_softmax(logits, dim=-1)
        chosen = scores.gather(-1, input_ids.flatten()[rows].unsqueeze(-1)).squeeze(-1)
        return chosen, -(scores.exp() * scores).sum(-1)

    def gradient_checkpointing_enable(self) -> None:
        """Passes the setting on to the language model."""
        self.language_model.gradient_checkpointing_enable()

    @torch.no_grad()
    def _check_head(self) -> None:
        model = self.language_model
        ids = torch.arange(1, 5, device=model.device).unsqueeze(0) % model.get_input_embeddings().weight.shape[0]
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        ours = model.get_output_embeddings()(hidden)
        if not torch.allclose(ours.float(), model(input_ids=ids, use_cache=False).logits.float(), rtol=1e-2, atol=1e-2):
            raise DataError(
                f"{model.name_or_path}: {type(model).__name__} changes its logits after the LM head (soft-capping or "
                "scaling), which the log-probs here do not follow; use another base model"
            )
