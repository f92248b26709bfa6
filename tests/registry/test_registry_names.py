"""Which names of models and aliases a run may have is known before it starts, and the same at every step."""

import pytest

from stepcoder.errors import DataError
from stepcoder.inputs import ResolveConfig
from stepcoder.new_data import NewDataConfig
from stepcoder.platform import tracking
from stepcoder.platform.config import parse
from stepcoder.registry import RegisterConfig, RollbackConfig

CONFIGS = {
    ResolveConfig: {"problems": "p.jsonl", "problem_format": "mbpp", "base_model": "b"},
    NewDataConfig: {"problems": "p.jsonl"},
    RegisterConfig: {"policy": "s3://models/1", "promote": True},
    RollbackConfig: {},
}
WITH_ALIAS = [ResolveConfig, RegisterConfig, RollbackConfig]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("model_name", ["", " ", ".", "..", "../a", "team/stepcoder", "a:b", "a' or '1", "n" * 201])
def test_a_model_name_that_mlflow_does_not_take_is_refused(config, model_name):
    with pytest.raises(DataError, match=r"inputs\.model_name"):
        parse(config, CONFIGS[config], where="inputs", model_name=model_name)


@pytest.mark.parametrize("config", WITH_ALIAS)
@pytest.mark.parametrize("alias", ["", "7", "prod.champion", "a/b", "latest", "Latest", "v3", "V12", "a" * 201])
def test_an_alias_that_mlflow_does_not_take_or_gives_a_meaning_of_its_own_is_refused(config, alias):
    with pytest.raises(DataError, match=r"inputs\.champion_alias"):
        parse(config, CONFIGS[config], where="inputs", champion_alias=alias)


@pytest.mark.usefixtures("name")
@pytest.mark.parametrize(
    ("model_name", "alias"),
    [("team.coder-7b_v2", "champion"), ("my model", "v3-beta"), ("7b", "latest-good"), ("a..b", "Prod_2")],
)
def test_what_is_taken_is_taken_by_mlflow(model_name, alias):
    for config in WITH_ALIAS:
        parse(config, CONFIGS[config], where="inputs", model_name=model_name, champion_alias=alias)
    client = tracking.client()
    client.create_registered_model(model_name)
    version = client.create_model_version(model_name, "s3://models/1")
    client.set_registered_model_alias(model_name, alias, version.version)
