"""`wva policy`: every value that holds for a model, and where it was said."""

from __future__ import annotations

import json

import pytest

POLICY = """
interval: 30s
analyzers:
  - type: saturation-v1
    parameters: {kvCacheThreshold: 0.75}
optimizer: {type: stepwise}
overrides:
  - match: {modelID: "llama*", namespace: prod}
    analyzers:
      - {name: saturation-v1, parameters: {kvSpareTrigger: 0.2}}
"""


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def settings(result):
    assert result.exit_code == 0, result.stderr
    return {row["key"]: (row["value"], row["origin"]) for row in json.loads(result.stdout)["settings"]}


def test_without_a_policy_the_profile_holds(wva):
    told = settings(wva("policy", "llama", "--output", "json"))
    assert told["analyzers[0].type"] == ("saturation-v1", "profile saturation-v1")
    assert told["optimizer.type"] == ("stepwise", "profile saturation-v1")
    assert told["analyzers[0].parameters.kvCacheThreshold"] == (0.8, "default")
    assert told["bounds.settleSeconds"] == (300.0, "default")


def test_every_value_has_the_place_where_it_was_said(wva, policy):
    told = settings(wva("policy", "llama-8b", "--namespace", "prod", "--policy", policy, "--output", "json"))
    assert told["interval"] == (30.0, f"{policy}: interval")
    parameters = "analyzers[0].parameters"
    assert told[f"{parameters}.kvCacheThreshold"] == (0.75, f"{policy}: {parameters}.kvCacheThreshold")
    assert told[f"{parameters}.kvSpareTrigger"] == (0.2, f"{policy}: overrides[0].{parameters}.kvSpareTrigger")
    assert told[f"{parameters}.queueSpareTrigger"] == (3.0, "default")


def test_an_override_of_another_namespace_does_not_hold(wva, policy):
    told = settings(wva("policy", "llama-8b", "--policy", policy, "--output", "json"))
    assert told["analyzers[0].parameters.kvSpareTrigger"] == (0.1, "default")


def test_a_directory_laid_out_like_a_config_map_is_read(wva, policy, tmp_path):
    directory = tmp_path / "mounted"
    directory.mkdir()
    (directory / "policy.yaml").write_text("mode: act\n")
    told = settings(wva("policy", "llama", "--policy", directory, "--output", "json"))
    assert told["mode"] == ("act", f"{directory}/policy.yaml: mode")


def test_the_environment_is_an_origin(wva, monkeypatch):
    monkeypatch.setenv("GLOBAL_OPT_INTERVAL", "45s")
    told = settings(wva("policy", "llama", "--output", "json"))
    assert told["interval"] == (45.0, "environment GLOBAL_OPT_INTERVAL")


def test_text_is_a_table_of_80_columns_in_which_no_key_is_broken(wva, policy):
    result = wva("policy", "llama-8b", "--namespace", "prod", "--policy", policy)
    assert result.exit_code == 0
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert max(len(line) for line in lines) <= 80
    assert lines[0] == "policy of llama-8b in namespace prod"
    keys = [line.split()[0] for line in lines if line.startswith(" ")]
    for key in ("interval", "analyzers[0]", "kvCacheThreshold", "stabilizationWindowSeconds", "scaleDown"):
        assert key in keys


def test_a_policy_that_is_wrong_is_refused(wva, tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(
        "analyzers: [{type: saturation-v1, parameters: {kvCacheThreshold: 1.5}}]\noptimizer: {type: stepwise}\n"
    )
    result = wva("policy", "llama", "--policy", path)
    assert result.exit_code == 2
    assert result.stderr.startswith(
        f"error: {path}: analyzers[0].parameters.kvCacheThreshold: is out of range (got 1.5)"
    )
