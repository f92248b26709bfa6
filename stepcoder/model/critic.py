"""The critic: a network of its own, the language model's backbone with a linear head without bias."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerBase

from stepcoder.errors import DataError
from stepcoder.model.load import PRECISION, device, local_model, without_dropout, write_card
from stepcoder.platform import engine

HEAD = "value_head.safetensors"


class Critic(nn.Module):
    """Values of every position of a sequence."""

    def __init__(self, backbone: nn.Module, hidden_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.value_head = nn.Linear(hidden_size, 1, bias=False)
        # Values start at zero: a random head would be noise in the first advantages.
        nn.init.zeros_(self.value_head.weight)

    def forward(
        self, input_ids: Int[Tensor, "batch length"], attention_mask: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length"]:
        """Value of each position, in float32: what the policy will have earned from the next token on."""
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        values: Tensor = self.value_head(hidden).squeeze(-1).float()
        return values

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Passes the setting on to the backbone."""
        self.backbone.gradient_checkpointing_enable(**options)  # type: ignore[operator]


def load_critic(address: str, precision: str = "fp32") -> Critic:
    """Loads a critic, or starts one from a policy: the backbone's weights and a head of zeros.

    Raises:
        DataError: the model cannot be loaded.
    """
    name = local_model(address)
    try:
        backbone = AutoModel.from_pretrained(name, dtype=PRECISION[precision])
        hidden_size = AutoConfig.from_pretrained(name).get_text_config().hidden_size
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(f"{address}: no critic can be made of this model: {str(error).splitlines()[0]}") from error
    critic = Critic(backbone, hidden_size)
    if (head := Path(name) / HEAD).is_file():
        critic.value_head.load_state_dict(load_file(head))
    critic = critic.to(device(), PRECISION[precision])
    without_dropout(critic)
    return critic.eval()


def save_critic(critic: Critic, tokenizer: PreTrainedTokenizerBase, folder: Path, card: dict[str, Any]) -> None:
    """Writes the backbone as a Hugging Face checkpoint, the head beside it, and `stepcoder.json`."""
    with engine.whole(critic):
        critic.backbone.save_pretrained(folder)  # type: ignore[operator]
        save_file({"weight": critic.value_head.weight.detach().cpu().contiguous()}, folder / HEAD)
    tokenizer.save_pretrained(folder)
    write_card(folder, card)
