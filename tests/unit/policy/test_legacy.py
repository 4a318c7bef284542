"""The saturation ConfigMap of upstream WVA: what an entry means, and the layers it becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator

from wva_core.domain import Fleet, Variant
from wva_core.errors import UnknownPluginError
from wva_core.policy import (
    Layer,
    ResolvedPolicy,
    SaturationEntry,
    resolve,
    resolve_saturation_entry,
    saturation_layers,
)

MODEL = {"model_id": "ibm/granite-13b", "namespace": "team"}
V1_FIELDS = ("kv_cache_threshold", "queue_length_threshold", "kv_spare_trigger", "queue_spare_trigger")


class SaturationV1(BaseModel):
    """The parameters of the analyzer `saturation-v1`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kv_cache_threshold: float = Field(0.80, ge=0, le=1)
    queue_length_threshold: float = Field(5.0, ge=0)
    kv_spare_trigger: float = Field(0.10, ge=0, le=1)
    queue_spare_trigger: float = Field(3.0, ge=0)

    @model_validator(mode="after")
    def _trigger_can_be_met(self) -> SaturationV1:
        if self.kv_spare_trigger > self.kv_cache_threshold:
            raise ValueError("the trigger is above the threshold")
        return self


class SaturationV2(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    kv_cache_threshold: float = 0.80
    queue_length_threshold: float = 5.0


class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def parameters_of(kind: str, name: str, *, installed: tuple[str, ...] = ("saturation-v1",)) -> type[BaseModel]:
    if kind == "optimizers":
        return Nothing
    if name not in installed:
        raise UnknownPluginError("no installed analyzer has this name", object=kind, key=name)
    return {"saturation-v1": SaturationV1, "saturation-v2": SaturationV2}.get(name, Nothing)


def entry(default: Any = None, override: Any = None) -> SaturationEntry:
    entries = {} if default is None else {"default": default}
    if override is not None:
        entries["granite"] = {**MODEL, **override}
    return resolve_saturation_entry(entries, "ibm/granite-13b", "team")


def layers(origin: str = "/etc/wva", **entries: Any) -> list[Layer]:
    contents = {key.replace("_", "-"): value for key, value in entries.items()}
    return saturation_layers(
        {key: value if isinstance(value, bytes) else json.dumps(value).encode() for key, value in contents.items()},
        origin,
    )


def policy(**entries: Any) -> ResolvedPolicy:
    return resolve(layers(**entries), parameters_of)


def warnings(**entries: Any) -> tuple[str, ...]:
    return policy(**entries).warnings


FLEET = Fleet([Variant("team", "v1", "ibm/granite-13b"), Variant("team", "v2", "llama")])


# What an entry means


class TestVectors:
    """Configuration resolution of upstream WVA v0.9 with overrides merged as they were typed."""

    def test_d1_resolve_merge(self):
        found = entry(
            {"kvCacheThreshold": 0.80, "analyzerName": "saturation"}, {"kvCacheThreshold": 0.85, "priority": 5}
        )
        assert (found.kv_cache_threshold, found.priority) == (0.85, 5.0)
        assert (found.queue_length_threshold, found.kv_spare_trigger, found.queue_spare_trigger) == (5, 0.10, 3)
        assert (found.scale_up_threshold, found.scale_down_boundary, found.is_v2) == (0.85, 0.70, True)

    def test_d2_tuned_global_survives(self):
        found = entry({"scaleUpThreshold": 0.95, "analyzers": [{"name": "saturation"}]}, {"kvCacheThreshold": 0.90})
        assert (found.kv_cache_threshold, found.scale_up_threshold, found.scale_down_boundary) == (0.90, 0.95, 0.70)

    def test_d3_sibling_default(self):
        found = entry({"kvCacheThreshold": 0.80}, {"scaleUpThreshold": 0.90})
        assert (found.scale_up_threshold, found.scale_down_boundary, found.is_v2) == (0.90, 0.70, False)

    def test_d4_inverted_pair(self):
        found = entry({"scaleUpThreshold": 0.85, "scaleDownBoundary": 0.70}, {"scaleDownBoundary": 0.95})
        assert (found.scale_up_threshold, found.scale_down_boundary) == (0.85, 0.70)

    def test_d5_v1_defaults(self):
        found = entry()
        assert found.priority == 1.0
        assert tuple(getattr(found, name) for name in V1_FIELDS) == (0.80, 5, 0.10, 3)
        assert (found.analyzers, found.is_v2, found.enable_limiter, found.scale_to_zero) == ((), False, False, None)


def test_an_override_of_one_field_inherits_the_tuned_others():
    tuned = {
        "kvCacheThreshold": 0.70,
        "queueLengthThreshold": 9,
        "kvSpareTrigger": 0.2,
        "queueSpareTrigger": 4,
        "priority": 3,
    }
    found = entry(tuned, {"queueLengthThreshold": 7})
    assert tuple(getattr(found, name) for name in V1_FIELDS) == (0.70, 7, 0.2, 4)
    assert found.priority == 3


def test_zero_means_not_set():
    found = entry({"kvCacheThreshold": 0.7, "priority": 0, "scaleUpThreshold": 0}, {"kvCacheThreshold": 0})
    assert (found.kv_cache_threshold, found.priority, found.scale_up_threshold) == (0.7, 1.0, 0.85)


def test_v2_without_a_list_votes_by_saturation():
    (only,) = entry({"analyzerName": "saturation"}).analyzers
    assert (only.type, only.enabled, only.score) == ("saturation", True, 1.0)


def test_another_analyzer_name_is_v1():
    assert not entry({"analyzerName": "capacity"}).is_v2


def test_a_list_of_analyzers_replaces_the_list():
    found = entry({"analyzers": [{"name": "saturation"}]}, {"analyzers": [{"type": "throughput", "score": 2}]})
    assert [(item.type, item.score) for item in found.analyzers] == [("throughput", 2.0)]


def test_parameters_of_an_analyzer_fill_in_its_typed_fields():
    inner = {"scaleUpThreshold": 0.9, "scaleDownBoundary": 0.5, "score": 3, "enabled": False, "other": 1}
    (item,) = entry({"analyzers": [{"name": "saturation", "score": 2, "parameters": inner}]}).analyzers
    assert (item.enabled, item.score, item.scale_up_threshold, item.scale_down_boundary) == (False, 2.0, 0.9, 0.5)


def test_scale_to_zero_replaces_when_present():
    assert entry({"scaleToZero": {"enabled": True}}, {"scaleToZero": {"enabled": False}}).scale_to_zero is False
    assert entry({"scaleToZero": {"enabled": True}}, {"priority": 2}).scale_to_zero is True


def test_a_key_of_model_and_namespace_stands_in_for_missing_fields():
    entries = {"ibm/granite-13b#team": {"kvCacheThreshold": 0.5}}
    assert resolve_saturation_entry(entries, "ibm/granite-13b", "team").kv_cache_threshold == 0.5
    assert resolve_saturation_entry(entries, "ibm/granite-13b", "other").kv_cache_threshold == 0.8


def test_the_fields_of_an_override_count_not_its_key():
    entries = {"llama#team": {**MODEL, "kvCacheThreshold": 0.5}}
    assert resolve_saturation_entry(entries, "ibm/granite-13b", "team").kv_cache_threshold == 0.5
    assert resolve_saturation_entry(entries, "llama", "team").kv_cache_threshold == 0.8


# Layers


def test_a_default_entry_without_analyzers_becomes_saturation_v1_with_stepwise():
    found = policy(
        default={"kvCacheThreshold": 0.80, "queueLengthThreshold": 5, "kvSpareTrigger": 0.1, "queueSpareTrigger": 3}
    )
    assert [item.type for item in found.spec.analyzers] == ["saturation-v1"]
    assert found.spec.optimizer.type == "stepwise"
    assert found.parameters("analyzers", "saturation-v1") == SaturationV1()
    assert found.warnings == ()


@pytest.mark.parametrize("default", [b"", b"{}"])
def test_an_empty_default_entry_is_all_defaults(default: bytes):
    assert policy(default=default).parameters("analyzers", "saturation-v1") == SaturationV1()


def test_overrides_without_a_default_entry_lie_over_the_defaults():
    settings = policy(granite={**MODEL, "kvCacheThreshold": 0.5}).settings(FLEET, "saturation-v1", (0.0, 0.0))
    assert settings["kv_cache_threshold"].tolist() == [0.5, 0.8]


def test_values_know_entry_and_key():
    found = policy(default={"kvCacheThreshold": 0.7}, granite={**MODEL, "queueLengthThreshold": 8})
    told = {setting.key: setting.origin for setting in found.explain("ibm/granite-13b", "team")}
    path = "analyzers[0].parameters"
    assert told[f"{path}.kvCacheThreshold"] == "/etc/wva/default: kvCacheThreshold"
    assert told[f"{path}.queueLengthThreshold"] == "/etc/wva/granite: queueLengthThreshold"
    assert told[f"{path}.kvSpareTrigger"] == "default"
    assert told["analyzers[0].type"] == "/etc/wva/default"
    assert found.origins["overrides[0].match.modelID"] == "/etc/wva/granite: model_id"


thresholds = st.fixed_dictionaries(
    {},
    optional={
        "kvCacheThreshold": st.sampled_from([0, 0.05, 0.5, 0.9, 1]),
        "queueLengthThreshold": st.sampled_from([0, 1, 7.5]),
        "kvSpareTrigger": st.sampled_from([0, 0.02, 0.3, 0.6]),
        "queueSpareTrigger": st.sampled_from([0, 2]),
    },
)


@given(thresholds, thresholds, thresholds)
def test_layers_say_of_every_model_what_its_entry_says(default: Any, override: Any, duplicate: Any):
    entries = {"default": default, "granite": {**MODEL, **override}, "h": {**MODEL, **duplicate}}
    settings = policy(**entries).settings(FLEET, "saturation-v1", (0.0, 0.0))
    for row, scope in enumerate(FLEET.scopes):
        found = resolve_saturation_entry(entries, scope.model, scope.namespace)
        assert {name: settings[name][row] for name in V1_FIELDS} == {name: getattr(found, name) for name in V1_FIELDS}


# Entries that are refused


def test_a_bad_entry_is_skipped_with_a_warning_and_the_others_count():
    found = policy(
        default={"kvCacheThreshold": 0.7},
        bad={"model_id": "x", "namespace": "y", "kvCacheThreshold": 1.7},
        granite={**MODEL, "kvCacheThreshold": 0.5},
    )
    assert found.warnings == (
        "/etc/wva/bad: kvCacheThreshold: is out of range (got 1.7); give a number from 0 to 1; the entry is skipped",
    )
    assert found.settings(FLEET, "saturation-v1", (0.0, 0.0))["kv_cache_threshold"].tolist() == [0.5, 0.7]


def test_a_bad_default_entry_leaves_the_built_in_defaults():
    found = policy(default={"kvCacheThreshold": "x"})
    assert found.parameters("analyzers", "saturation-v1") == SaturationV1()
    assert len(found.warnings) == 1


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ({"kvCacheThreshold": "0.8"}, "kvCacheThreshold: is not a number (got '0.8')"),
        ({"queueLengthThreshold": -1}, "queueLengthThreshold: is out of range (got -1)"),
        ({"priority": -1}, "priority: is out of range (got -1)"),
        ({"enableLimiter": "true"}, "enableLimiter: is not true or false (got 'true')"),
        ({"scaleUpThreshold": 1.5}, "scaleUpThreshold: is out of range (got 1.5)"),
        (
            {"scaleUpThreshold": 0.5, "scaleDownBoundary": 0.6},
            "leaves no room between scaleUpThreshold 0.5 and scaleDownBoundary 0.6",
        ),
        (
            {"scaleUpThreshold": 0.5, "analyzers": [{"name": "saturation", "scaleDownBoundary": 0.6}]},
            "leaves no room between scaleUpThreshold 0.5 and scaleDownBoundary 0.6",
        ),
        ({"analyzers": [{"score": 2}]}, "analyzers[0]: names no analyzer"),
        (
            {"analyzers": [{"name": "saturation", "parameters": {"score": "x"}}]},
            "analyzers[0].parameters.score: is not a number (got 'x')",
        ),
        ({"kvCacheThreshold": 0.05}, "leaves kvSpareTrigger 0.1 above kvCacheThreshold 0.05; lower the trigger"),
    ],
)
def test_what_upstream_drops_is_dropped(override: dict[str, Any], problem: str):
    (warning,) = warnings(default={}, granite={**MODEL, **override})
    assert warning.startswith(f"/etc/wva/granite: {problem}")
    assert warning.endswith("; the entry is skipped")
    assert entry({}, override) == entry({})


def test_yaml_that_cannot_be_read_is_skipped_too():
    (warning,) = warnings(default=b"a: ]", granite=MODEL)
    assert warning.startswith("/etc/wva/default: line 1, column ")
    assert warning.endswith("; the entry is skipped")


def test_of_duplicate_matches_the_first_key_counts():
    found = policy(default={}, b={**MODEL, "kvCacheThreshold": 0.4}, a={**MODEL, "kvCacheThreshold": 0.6})
    assert found.settings(FLEET, "saturation-v1", (0.0, 0.0))["kv_cache_threshold"].tolist() == [0.6, 0.8]
    assert found.warnings == ("/etc/wva/b: is for the model of /etc/wva/a and is skipped; remove one of them",)


def test_an_override_for_nobody_is_skipped():
    assert warnings(default={}, granite={"model_id": "x", "kvCacheThreshold": 0.5}) == (
        "/etc/wva/granite: says of no model what it is for, and is skipped; give model_id and namespace",
    )


def test_unknown_keys_are_reported():
    assert warnings(default={"kvCacheTreshold": 0.5, "other": 1}) == (
        "/etc/wva/default: kvCacheTreshold, other are not known and left out",
    )


def test_keys_without_effect_are_reported():
    found = warnings(
        default={"enableLimiter": True, "priority": 1, "scaleUpThreshold": 0.9},
        granite={**MODEL, "analyzers": [{"name": "saturation"}]},
    )
    assert found == (
        "/etc/wva/default: enableLimiter, scaleUpThreshold are without effect with saturation-v1",
        "/etc/wva/granite: analyzers is without effect with saturation-v1",
    )


# Entries that ask for V2


def test_v2_is_refused_by_name_where_it_is_not_installed():
    for default in ({"analyzerName": "saturation"}, {"analyzers": [{"name": "saturation", "score": 1.0}]}):
        with pytest.raises(UnknownPluginError) as caught:
            policy(default=default)
        assert str(caught.value) == "analyzers: saturation-v2: no installed analyzer has this name"


def v2(**entries: Any) -> ResolvedPolicy:
    return resolve(
        layers(**entries),
        lambda kind, name: parameters_of(kind, name, installed=("saturation-v2", "throughput")),
    )


def test_v2_keeps_lists_thresholds_scores_and_parameters():
    found = v2(
        default={
            "kvCacheThreshold": 0.7,
            "scaleUpThreshold": 0.9,
            "analyzers": [
                {"type": "throughput", "score": 2, "scaleDownBoundary": 0.6},
                {"name": "saturation"},
                {"name": "magic"},
            ],
        },
        granite={**MODEL, "queueLengthThreshold": 9, "scaleDownBoundary": 0.95},
    )
    assert [item.type for item in found.spec.analyzers] == ["saturation-v2", "throughput"]
    assert found.spec.optimizer.type == "cost-aware"
    saturation = found.settings(FLEET, "saturation-v2", (0.85, 0.7))
    assert saturation["kv_cache_threshold"].tolist() == [0.7, 0.7]
    assert saturation["queue_length_threshold"].tolist() == [9, 5]
    # .90 and .95 leave no room: back to .85 and .70 for the model of the override
    assert list(zip(saturation.scale_up, saturation.scale_down, strict=True)) == [(0.85, 0.70), (0.9, 0.7)]
    throughput = found.settings(FLEET, "throughput", (0.85, 0.7))
    assert (throughput.scale_up[1], throughput.scale_down[1], throughput.score[1]) == (0.9, 0.6, 2)
    assert found.warnings == ("/etc/wva/default: the analyzer 'magic' is not known and is left out",)


def test_v2_with_the_limiter_asks_for_the_optimizer_that_shares():
    assert v2(default={"analyzerName": "saturation", "enableLimiter": True}).spec.optimizer.type == "greedy-by-score"


def test_an_analyzer_that_an_override_does_not_list_is_disabled_there():
    found = v2(
        default={"analyzers": [{"name": "saturation"}, {"name": "throughput"}]},
        granite={**MODEL, "analyzers": [{"name": "throughput"}]},
    )
    assert found.enabled(FLEET, "saturation-v2").tolist() == [False, True]
    assert found.enabled(FLEET, "throughput").tolist() == [True, True]
