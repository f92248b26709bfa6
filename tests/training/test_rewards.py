import pytest

from stepcoder.rewards import reward
from stepcoder.sandbox import Outcome


@pytest.mark.parametrize(
    ("outcome", "value"),
    [
        ("pass", 1.0),
        ("wrong_answer", -0.3),
        ("runtime_error", -0.6),
        ("timeout", -0.6),
        ("memory", -0.6),
        ("output_limit", -0.6),
        ("security", -0.6),
        ("compile_error", -1.0),
        ("infra_error", None),
        ("not_run", None),
    ],
)
def test_the_reward_of_each_outcome(outcome: str, value: float | None) -> None:
    assert reward(Outcome(outcome)) == value


def test_every_outcome_has_a_rule() -> None:
    assert {outcome: reward(outcome) for outcome in Outcome}.keys() == set(Outcome)
