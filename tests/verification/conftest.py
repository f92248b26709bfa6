import json

import pytest

from stepcoder.verification import VerifyConfig


@pytest.fixture
def configure(tmp_path):
    """Writes records and corrections, and gives the config that verifies them."""

    def build(lines, corrections=None, name="records.jsonl", **settings):
        path = tmp_path / name
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        if corrections is not None:
            settings["corrections"] = str(tmp_path / "corrections.jsonl")
            (tmp_path / "corrections.jsonl").write_text("\n".join(map(json.dumps, corrections)))
        return VerifyConfig(
            **{"problems": str(path), "format": "apps_plus", "out": str(tmp_path / "dataset"), "cpu_seconds": 0.5}
            | settings
        )

    return build
