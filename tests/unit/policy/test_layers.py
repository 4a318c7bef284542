"""Layers of policy: precedence, origins, and what is refused in them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from wva_core.errors import PolicyError, UnknownPluginError
from wva_core.policy import (
    Layer,
    PolicySpec,
    Precedence,
    ResolvedPolicy,
    environment_layers,
    parse_duration,
    profile_layer,
    profile_names,
    resolve,
)


class Levels(BaseModel):
    """Parameters of the analyzers `saturation-v1` and `other`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kv_cache_threshold: float = Field(0.8, ge=0, le=1)
    kv_spare_trigger: float = Field(0.1, ge=0, le=1)
    weights: dict[str, float] = {}

    @model_validator(mode="after")
    def _trigger_can_be_met(self) -> Levels:
        if self.kv_spare_trigger > self.kv_cache_threshold:
            raise ValueError("the trigger is above the threshold; lower the trigger")
        return self


class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Broken(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = 0

    @field_validator("size")
    @classmethod
    def _fails(cls, value: int) -> int:
        raise TypeError("no such luck")


MODELS: dict[tuple[str, str], type[BaseModel]] = {
    ("analyzers", "saturation-v1"): Levels,
    ("analyzers", "other"): Levels,
    ("analyzers", "broken"): Broken,
    ("optimizers", "stepwise"): Nothing,
    ("optimizers", "cost-aware"): Nothing,
}


def parameters_of(kind: str, name: str) -> type[BaseModel]:
    if (kind, name) not in MODELS:
        raise UnknownPluginError("is not installed", object=kind, key=name)
    return MODELS[kind, name]


def policy(*documents: dict[str, Any], **arguments: Any) -> ResolvedPolicy:
    layers = [Layer(f"{name}.yaml", values) for name, values in zip("abc", documents, strict=False)]
    return resolve(layers, parameters_of, **arguments)


def refusal(*documents: dict[str, Any], **arguments: Any) -> str:
    with pytest.raises(PolicyError) as caught:
        policy(*documents, **arguments)
    return str(caught.value)


def override(model: str = "m", namespace: str | None = None, **values: Any) -> dict[str, Any]:
    match = {"modelID": model} if namespace is None else {"modelID": model, "namespace": namespace}
    return {"match": match, **values}


def levels(name: str = "saturation-v1", **parameters: Any) -> dict[str, Any]:
    return {"name": name, "parameters": parameters}


# Defaults and precedence


def test_nothing_said_is_the_default_profile_in_advise_mode_every_15_seconds():
    spec = policy().spec
    assert isinstance(spec, PolicySpec)
    assert [entry.type for entry in spec.analyzers] == ["saturation-v1"]
    assert spec.optimizer.type == "stepwise"
    assert (spec.mode, spec.interval, spec.profile) == ("advise", 15.0, "saturation-v1")


def test_defaults_are_those_of_the_reference():
    plain = policy().plain
    assert plain["ballot"] == {"compat": False, "liveIntervals": 3}
    rules = {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": []}
    assert plain["bounds"] == {
        "settleSeconds": 300.0,
        "staleAfterSeconds": 60.0,
        "unavailableAfterSeconds": 300.0,
        "behavior": {"scaleUp": rules, "scaleDown": rules},
    }
    assert plain["analyzers"][0] == {
        "type": "saturation-v1",
        "name": "saturation-v1",
        "enabled": True,
        "required": True,
        "score": 1.0,
        "parameters": {"kvCacheThreshold": 0.8, "kvSpareTrigger": 0.1, "weights": {}},
    }


def test_a_document_wins_over_the_profile_and_the_profile_over_the_environment():
    profile = Layer("profile p", {"interval": 20, "mode": "observe"}, Precedence.PROFILE)
    environment = Layer("environment E", {"interval": 10, "ballot": {"liveIntervals": 9}}, Precedence.ENVIRONMENT)
    document = Layer("a.yaml", {"mode": "act"})
    spec = resolve([document, environment, profile], parameters_of).spec
    assert (spec.mode, spec.interval, spec.ballot.live_intervals) == ("act", 20.0, 9)


def test_mappings_merge_key_by_key():
    spec = policy({"bounds": {"settleSeconds": 1}}, {"bounds": {"staleAfterSeconds": 2}}).spec
    assert (spec.bounds.settle_seconds, spec.bounds.stale_after_seconds) == (1.0, 2.0)


def test_the_list_of_analyzers_is_taken_as_a_whole():
    first = {"analyzers": [{"type": "saturation-v1", "score": 2}, {"type": "other"}], "optimizer": {"type": "stepwise"}}
    found = policy(first, {"analyzers": [{"type": "other", "name": "mine"}]})
    assert [(entry.type, entry.name, entry.score) for entry in found.spec.analyzers] == [("other", "mine", 1.0)]
    assert found.origins["analyzers[0].score"] == "default"


def test_the_optimizer_is_taken_as_a_whole():
    first = {"profile": "saturation-v1", "optimizer": {"type": "stepwise", "name": "x"}}
    assert policy(first, {"optimizer": {"type": "cost-aware"}}).spec.optimizer.name == "cost-aware"


def test_overrides_of_all_layers_are_kept_in_order():
    found = policy({"overrides": [override("x")]}, {"overrides": [override("y")]})
    assert [each.match.model_id for each in found.spec.overrides] == ["x", "y"]


def test_a_profile_fills_in_what_a_document_leaves_out():
    found = policy({"profile": "saturation-v1", "analyzers": [{"type": "other"}]})
    assert (found.spec.analyzers[0].type, found.spec.optimizer.type) == ("other", "stepwise")


def test_half_a_brain_without_a_profile_is_refused():
    assert refusal({"analyzers": [{"type": "other"}]}) == (
        "a.yaml: optimizer: is missing; name the optimizer beside the rest of the brain, or start from a profile:"
        " inferno, saturation-v1, slo"
    )


def test_null_is_as_good_as_left_out_where_nothing_is_the_default():
    assert policy({"profile": None, "optimizer": None}).spec.optimizer.type == "stepwise"


# Origins


def test_every_value_knows_its_origin():
    profile = profile_layer("saturation-v1")
    origins = resolve(
        [Layer("a.yaml", {"bounds": {"settleSeconds": 7}, "interval": "1m"}), profile], parameters_of
    ).origins
    assert origins["bounds.settleSeconds"] == "a.yaml: bounds.settleSeconds"
    assert origins["bounds.staleAfterSeconds"] == "default"
    assert origins["analyzers[0].type"] == "profile saturation-v1"
    assert origins["analyzers[0].parameters.kvCacheThreshold"] == "default"
    assert origins["interval"] == "a.yaml: interval"


def test_a_list_that_is_replaced_leaves_no_origin_behind():
    rates = [{"type": "Pods", "value": 1, "periodSeconds": 10}, {"type": "Percent", "value": 9, "periodSeconds": 10}]
    first = {"bounds": {"behavior": {"scaleUp": {"policies": rates}}}}
    second = {"bounds": {"behavior": {"scaleUp": {"policies": rates[1:]}}}}
    origins = policy(first, second).origins
    assert origins["bounds.behavior.scaleUp.policies[0].type"].startswith("b.yaml")
    assert "bounds.behavior.scaleUp.policies[1].type" not in origins


def test_a_parameter_knows_where_in_the_document_it_was_said():
    entry = {"type": "saturation-v1", "parameters": {"weights": {"H 100": 2.0}}}
    origins = policy({"profile": "saturation-v1", "analyzers": [entry]}).origins
    path = 'analyzers[0].parameters.weights["H 100"]'
    assert origins[path] == f"a.yaml: {path}"


def test_places_translate_key_paths_into_those_of_the_writer():
    layer = Layer("x.yaml", {}, places={"overrides[0]": "", "overrides[0].match.modelID": "model_id"})
    assert layer.spelled("overrides[0].bounds.settleSeconds") == "bounds.settleSeconds"
    assert layer.spelled("overrides[0].match.modelID") == "model_id"
    assert layer.spelled("overrides[01]") == "overrides[01]"
    assert layer.origin_of("overrides[0]") == "x.yaml"


# Refusals


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"mode": "avdise"},
            "mode: is not known (got 'avdise'); did you mean 'advise'? give one of observe, advise, approve, act",
        ),
        (
            {"intervall": 3},
            (
                "intervall: is not a known key (got 3); did you mean 'interval'? known keys: profile, mode, interval,"
                " analyzers, optimizer, ballot, bounds, overrides"
            ),
        ),
        (
            {"interval": "15"},
            "interval: is not a duration (got '15'); give a number with a unit, such as 15s, 1m30s or 0.5h",
        ),
        (
            {"interval": "500ms"},
            (
                "interval: is not an interval of at least one second (got '500ms'); give seconds, or a duration such as"
                " 15s or 1m30s"
            ),
        ),
        (
            {"profile": "saturation"},
            "profile: is not a profile (got 'saturation'); give one of inferno, saturation-v1, slo",
        ),
        (
            {"analyzers": []},
            "analyzers: has no analyzer that is enabled; enable at least one, or leave the key out for the profile's",
        ),
        (
            {"analyzers": [{"type": "other", "enabled": False}]},
            "analyzers: has no analyzer that is enabled; enable at least one, or leave the key out for the profile's",
        ),
        (
            {"analyzers": [{"type": "other"}, {"type": "saturation-v1", "name": "other"}]},
            "analyzers[1].name: has the name of analyzers[0] (got 'other'); give each a name of its own",
        ),
        (
            {"overrides": [override(analyzers=[levels(), levels()])]},
            (
                "overrides[0].analyzers[1].name: has the name of overrides[0].analyzers[0] (got 'saturation-v1');"
                " give each a name of its own"
            ),
        ),
        (
            {"optimizer": {"type": "stepwise", "score": 2}},
            "optimizer.score: is not a known key (got 2); known keys: type, name, parameters",
        ),
        (
            {"overrides": [{"match": {}}]},
            "overrides[0].match: matches nothing in particular (got {}); give modelID, namespace or both",
        ),
        (
            {"overrides": [override(ballot={"compat": True})]},
            (
                "overrides[0].ballot: is not a known key (got {'compat': True}); known keys: name, match, analyzers,"
                " bounds"
            ),
        ),
        (
            {"overrides": [override(analyzers=[levels("saturation-v2")])]},
            (
                "overrides[0].analyzers[0].name: is not an analyzer of this policy (got 'saturation-v2');"
                " give one of saturation-v1"
            ),
        ),
        (
            {"profile": "saturation-v1", "optimizer": {"type": "stepwise", "parameters": {"x": 1}}},
            "optimizer.parameters.x: is not a known key (got 1); known keys: none",
        ),
        (
            {"bounds": {"staleAfterSeconds": 400}},
            (
                "bounds.staleAfterSeconds: lets signals be missing after 300 s, before they are stale after 400 s;"
                " give an unavailableAfterSeconds of at least staleAfterSeconds"
            ),
        ),
        (
            {"overrides": [override(bounds={"unavailableAfterSeconds": 30})]},
            (
                "overrides[0].bounds.unavailableAfterSeconds: lets signals be missing after 30 s, before they are stale"
                " after 60 s; give an unavailableAfterSeconds of at least staleAfterSeconds"
            ),
        ),
        (
            {"overrides": [override(analyzers=[{"name": "saturation-v1", "enabled": False}])]},
            "overrides[0].analyzers: leaves no analyzer enabled; leave at least one enabled",
        ),
        (
            {"overrides": [override(analyzers=[levels(kvCacheThreshold=1.5)])]},
            (
                "overrides[0].analyzers[0].parameters.kvCacheThreshold: is out of range (got 1.5);"
                " give a number from 0 to 1"
            ),
        ),
        (
            {"overrides": [override(analyzers=[levels(kvCacheTreshold=0.5)])]},
            (
                "overrides[0].analyzers[0].parameters.kvCacheTreshold: is not a known key (got 0.5);"
                " did you mean 'kvCacheThreshold'? known keys: kvCacheThreshold, kvSpareTrigger, weights"
            ),
        ),
    ],
)
def test_what_is_refused_names_file_key_value_and_remedy(document: dict[str, Any], message: str):
    assert refusal(document) == f"a.yaml: {message}"


def test_parameters_of_a_plugin_are_checked_by_its_own_model():
    entry = {"type": "saturation-v1", "parameters": {"kvCacheThreshold": 1.5}}
    assert refusal({"profile": "saturation-v1", "analyzers": [entry]}) == (
        "a.yaml: analyzers[0].parameters.kvCacheThreshold: is out of range (got 1.5); give a number from 0 to 1"
    )


def test_an_override_is_checked_with_what_it_lies_over():
    # 0.05 is a fine threshold, but not with the trigger of 0.1 below it.
    assert refusal({"overrides": [override(analyzers=[levels(kvCacheThreshold=0.05)])]}) == (
        "a.yaml: overrides[0].analyzers[0].parameters: the trigger is above the threshold"
        " (got {'kvCacheThreshold': 0.05}); lower the trigger"
    )


def test_two_overrides_that_can_meet_are_checked_together():
    trigger = override("m*", analyzers=[levels(kvSpareTrigger=0.4)])
    threshold = override("*x", analyzers=[levels(kvCacheThreshold=0.3)])
    apart = override("nx", "ns", analyzers=[levels(kvCacheThreshold=0.3)])
    policy({"overrides": [trigger, apart]})
    assert "overrides[1].analyzers[0].parameters: the trigger is above" in refusal({"overrides": [trigger, threshold]})


def test_a_value_is_refused_in_the_file_that_gives_it():
    assert refusal({"mode": "act"}, {"bounds": {"settleSeconds": -1}}) == (
        "b.yaml: bounds.settleSeconds: is out of range (got -1); give a number of at least 0"
    )


def test_what_is_refused_after_merging_names_the_file_it_came_from():
    first, second = {"bounds": {"staleAfterSeconds": 500}}, {"mode": "act"}
    assert refusal(first, second).startswith("a.yaml: bounds.staleAfterSeconds: ")


def test_an_unknown_plugin_keeps_its_own_error():
    with pytest.raises(UnknownPluginError, match="analyzers: saturation-v9: is not installed"):
        policy({"profile": "saturation-v1", "analyzers": [{"type": "saturation-v9"}]})


def test_a_plugin_whose_check_fails_does_not_bring_the_reload_down():
    document = {"profile": "saturation-v1", "analyzers": [{"type": "broken", "parameters": {"size": 1}}]}
    assert refusal(document) == (
        "a.yaml: analyzers[0].parameters: cannot be checked: TypeError: no such luck; change them, or report this to"
        " the author of the plugin"
    )


@pytest.mark.parametrize(
    ("given", "brought", "is_refused"),
    [
        ({"scaleUp": 0.6, "scaleDown": 0.7}, None, True),
        ({"scaleUp": 0.7, "scaleDown": 0.7}, None, True),
        ({"scaleUp": 0.6}, None, False),  # may fit what the analyzer brings
        ({"scaleUp": 0.6}, (0.85, 0.7), True),
        ({"scaleDown": 0.9}, (0.85, 0.7), True),
        ({"scaleUp": 0.9}, (0.85, 0.7), False),
        ({"scaleDown": 0.5}, (0.0, 0.0), False),  # 0 is not judged
    ],
)
def test_thresholds_leave_room_after_merging(given: dict[str, float], brought: Any, is_refused: bool):
    document = {"profile": "saturation-v1", "analyzers": [{"type": "other", "thresholds": given}]}
    arguments = {"thresholds_of": lambda _: brought} if brought else {}
    if is_refused:
        assert "a.yaml: analyzers[0].thresholds: leaves no room between scaleUp " in refusal(document, **arguments)
    else:
        policy(document, **arguments)


def test_the_text_about_thresholds_names_both():
    document = {
        "profile": "saturation-v1",
        "analyzers": [{"type": "other", "thresholds": {"scaleUp": 0.8, "scaleDown": 0.5}}],
        "overrides": [override(analyzers=[{"name": "other", "thresholds": {"scaleUp": 0.4}}])],
    }
    assert refusal(document) == (
        "a.yaml: overrides[0].analyzers[0].thresholds: leaves no room between scaleUp 0.4 and scaleDown 0.5;"
        " give a scaleUp above scaleDown; what is left out comes from the layer below or from the analyzer"
    )


# Profiles and environment


def test_the_profiles_are_the_files_that_are_shipped():
    assert profile_names() == ("inferno", "saturation-v1", "slo")


@pytest.mark.parametrize("name", ["saturation-v1"])
def test_every_profile_resolves(name: str):
    assert policy({"profile": name}).spec.profile == name


@pytest.mark.parametrize(("text", "seconds"), [("60s", 60.0), ("1m30s", 90.0), ("0.5h", 1800.0), ("1500ms", 1.5)])
def test_the_interval_of_the_environment_lies_under_everything_else(text: str, seconds: float):
    layers = environment_layers({"GLOBAL_OPT_INTERVAL": text, "HOME": "/root"})
    found = resolve(layers, parameters_of)
    assert found.spec.interval == seconds
    assert found.origins["interval"] == "environment GLOBAL_OPT_INTERVAL"
    assert resolve([Layer("a.yaml", {"interval": 5}), *layers], parameters_of).spec.interval == 5.0


@pytest.mark.parametrize("text", ["15", "abc", "500ms", "-15s", "0s"])
def test_an_interval_of_the_environment_that_is_none_leaves_the_default_and_a_warning(text: str):
    found = resolve(environment_layers({"GLOBAL_OPT_INTERVAL": text}), parameters_of)
    assert found.spec.interval == 15.0
    assert found.warnings == (
        (
            f"environment GLOBAL_OPT_INTERVAL: is not a duration of at least 1s (got {text!r}) and is left out;"
            " give a number with a unit, such as 15s or 1m"
        ),
    )


def test_an_empty_environment_says_nothing():
    assert environment_layers({}) == environment_layers({"GLOBAL_OPT_INTERVAL": ""}) == []


@pytest.mark.parametrize("text", ["", "1", "s", "1s2", "1 s", "1x", "-1s", "1s 2m"])
def test_what_is_no_duration_is_refused(text: str):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1h2m3s", 3723.0), ("1.5s", 1.5), (".5s", 0.5), ("1us", 1e-6), ("1µs", 1e-6), ("2ns", 2e-9)]
)
def test_durations_are_as_in_go(text: str, seconds: float):
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-15)
