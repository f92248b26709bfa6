"""The critic: a network of its own, the language model's backbone with a linear head without bias."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from stepcoder.errors import DataError
from stepcoder.model import attention
from stepcoder.model.batch import Packed
from stepcoder.model.load import PRECISION, device, local_model, pretrained, save_merged, without_dropout, write_card
from stepcoder.model.policy import states
from stepcoder.platform import engine, ranks
from stepcoder.platform.redaction import first_line

HEAD = "value_head.safetensors"


class Critic(nn.Module):
    """Values of the response tokens of packed sequences."""

    def __init__(self, backbone: PreTrainedModel, hidden_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.value_head = nn.Linear(hidden_size, 1, bias=False, dtype=backbone.dtype)
        # Values start at zero: a random head would be noise in the first advantages.
        nn.init.zeros_(self.value_head.weight)

    def forward(self, packed: Packed) -> Float[Tensor, " tokens"]:
        """Value of each response token, in float32: what the policy will have earned from that token on.

        It is that of the state before the token.
        """
        values: Tensor = self.value_head(states(self.backbone, packed)).squeeze(-1).float()
        return values

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Passes the setting on to the backbone."""
        self.backbone.gradient_checkpointing_enable(**options)


def load_critic(address: str, precision: str = "fp32") -> Critic:
    """Loads a critic, or starts one from a policy: the backbone's weights and a head of zeros.

    Raises:
        DataError: the model cannot be loaded.
    """
    try:
        backbone = pretrained(AutoModel, address, dtype=PRECISION[precision], attn_implementation=attention.NAME)
        hidden_size = pretrained(AutoConfig, address).get_text_config().hidden_size
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(f"{address}: no critic can be made of this model: {first_line(error)}") from error
    critic = Critic(backbone, hidden_size)
    if (head := Path(local_model(address)) / HEAD).is_file():
        critic.value_head.load_state_dict(load_file(head))
    # No number format here: the angles of rotary positions are no weights, and stay in float32.
    critic = critic.to(device())
    without_dropout(critic)
    return critic.eval()


def save_critic(
    critic: Critic,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    card: dict[str, Any],
    *,
    adapter_base: str | None = None,
) -> None:
    """Writes the backbone as a Hugging Face checkpoint, the head beside it, and `stepcoder.json`.

    All ranks call it, rank 0 writes. Adapters, trained on `adapter_base`, are merged in.
    """
    with engine.whole(critic):
        if not ranks.is_main():
            return
        if adapter_base is None:
            critic.backbone.save_pretrained(folder)
        else:
            save_merged(critic.backbone, adapter_base, AutoModel, folder)
        save_file({"weight": critic.value_head.weight.detach().cpu().contiguous()}, folder / HEAD)
    tokenizer.save_pretrained(folder)
    write_card(folder, card)
