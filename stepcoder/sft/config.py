"""Settings of SFT. Imports no torch, so they can be checked anywhere."""

from __future__ import annotations

from pydantic import Field

from stepcoder.model.settings import TrainingConfig


class SftConfig(TrainingConfig):
    """Supervised fine-tuning on the reference solutions: the warm start, and the reference policy of PPO."""

    base_model: str
    """Hugging Face id, folder or `s3://` address of the model to start from."""
    epochs: float = Field(3.0, gt=0)
    """Passes over the training problems."""
    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate."""
    warmup_epochs: float = Field(0.3, ge=0)
    """Length of the linear warm-up, in epochs; then linear to zero."""
    batch_size: int = Field(64, ge=1)
    """Problems an optimiser step, over all ranks."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW weight decay."""
