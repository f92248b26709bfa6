"""What is compared: shapes, and the hyper-parameters that both sides use. Imports nothing but the standard library."""

from __future__ import annotations

import random
from dataclasses import dataclass

LEARNING_RATE = 1e-5
TEMPERATURE = 1.0
KL_BETA = 0.05
CLIP = 0.2
VALUE_CLIP = 0.2
VALUE_LOSS_WEIGHT = 1.0
GAMMA = 1.0
LAMBDA = 0.95
HEADS = 4


@dataclass(frozen=True)
class Setting:
    """One comparison. Both sides read it from the same place."""

    name: str
    # model
    hidden: int
    layers: int
    vocabulary: int
    # one step
    prompts: int
    """Distinct prompts a step."""
    samples: int
    """Roll-outs a prompt."""
    prompt_tokens: int
    response_tokens: int
    """Tokens of each response, or of the longest one where they are ragged."""
    epochs: int
    minibatches: int
    # how each side splits its work; decided by `tune`, see the README
    micro_batch_tokens: int
    """Our token budget of one forward and backward pass."""
    sampling_batch: int
    """Sequences that our generator samples together."""
    trl_micro_batch: int
    """TRL's sequences of one forward and backward pass; 0: a whole mini-batch."""
    trl_rollout_batch: int
    """TRL's sequences that are sampled, and then scored, together."""
    # what is expected of it
    ragged: bool = False
    least_ratio: float | None = None
    """TRL's seconds over ours: at least this."""
    most_memory: float | None = None
    """Our peak over TRL's: at most this."""
    most_pairs: int | None = None
    """Pairs that are enough: memory hardly varies."""
    least_peak_share: float | None = None
    """Share of the matrix peak that our update reaches: at least this."""

    @property
    def batch(self) -> int:
        """Sequences a step."""
        return self.prompts * self.samples

    @property
    def intermediate(self) -> int:
        """Width of the feed-forward layers, as `stepcoder.model.init` chooses it."""
        return self.hidden * 8 // 3 // 8 * 8

    @property
    def end(self) -> int:
        """Id of the end of text. Beyond the vocabulary where no response may end, so that nobody can sample it."""
        return self.vocabulary - 1 if self.ragged else self.vocabulary + 1

    @property
    def padding(self) -> int:
        """Id of the padding."""
        return self.vocabulary - 2 if self.ragged else self.vocabulary

    def prompt_ids(self) -> list[list[int]]:
        """The distinct prompts: any ids of the vocabulary, the same on both sides."""
        draw = random.Random(0)
        return [[draw.randrange(self.vocabulary - 2) for _ in range(self.prompt_tokens)] for _ in range(self.prompts)]

    def lengths(self, step: int) -> list[int]:
        """Tokens of each response of a step, end of text included.

        Ragged ones are the quantiles of `longest * u^1.5` (mean 0.4 of the longest), in an order drawn for each step;
        the longest is always there.
        """
        if not self.ragged:
            return [self.response_tokens] * self.batch
        found = [max(1, round(self.response_tokens * ((i + 0.5) / self.batch) ** 1.5)) for i in range(self.batch)]
        found[-1] = self.response_tokens
        random.Random(step).shuffle(found)
        return found


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting(
            "0.2m",
            hidden=64,
            layers=2,
            vocabulary=1024,
            prompts=4,
            samples=16,
            prompt_tokens=64,
            response_tokens=64,
            epochs=2,
            minibatches=2,
            micro_batch_tokens=4096,
            sampling_batch=64,
            trl_micro_batch=0,
            trl_rollout_batch=64,
            least_ratio=2.5,
        ),
        Setting(
            "0.2m-4",
            hidden=64,
            layers=2,
            vocabulary=1024,
            prompts=16,
            samples=4,
            prompt_tokens=64,
            response_tokens=64,
            epochs=2,
            minibatches=2,
            micro_batch_tokens=4096,
            sampling_batch=64,
            trl_micro_batch=0,
            trl_rollout_batch=64,
        ),
        Setting(
            "6m",
            hidden=256,
            layers=7,
            vocabulary=2048,
            prompts=2,
            samples=4,
            prompt_tokens=96,
            response_tokens=96,
            epochs=1,
            minibatches=2,
            micro_batch_tokens=1152,
            sampling_batch=8,
            trl_micro_batch=0,
            trl_rollout_batch=8,
            least_ratio=1.4,
            least_peak_share=0.5,
        ),
        Setting(
            "6m-ragged",
            hidden=256,
            layers=7,
            vocabulary=2048,
            prompts=2,
            samples=16,
            prompt_tokens=96,
            response_tokens=192,
            epochs=1,
            minibatches=2,
            micro_batch_tokens=2304,
            sampling_batch=32,
            trl_micro_batch=0,
            trl_rollout_batch=32,
            ragged=True,
            least_ratio=3.0,
        ),
        Setting(
            "memory",
            hidden=64,
            layers=2,
            vocabulary=32000,
            prompts=2,
            samples=4,
            prompt_tokens=64,
            response_tokens=512,
            epochs=1,
            minibatches=2,
            micro_batch_tokens=576,
            sampling_batch=8,
            trl_micro_batch=1,
            trl_rollout_batch=1,
            most_memory=0.3,
            most_pairs=3,
        ),
    )
}
