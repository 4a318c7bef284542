"""A resolved policy: columns per scope, explanations, and what records keep of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from wva_core.domain import Fleet, Variant
from wva_core.errors import ParameterError, PolicyError
from wva_core.numerics.scaling_behavior import UNDAMPED, Behavior, ScalingPolicy, ScalingRules
from wva_core.policy import Layer, ResolvedPolicy, resolve


class Size(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    of_batch: int = 8


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    per_replica: float = 10.0
    ceiling: float | None = None
    count: int = 3
    is_strict: bool = False
    label: str = "x"
    shares: tuple[float, ...] = ()
    size: Size = Size()
    word: str | None = None


class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


BRAIN: dict[str, Any] = {
    "analyzers": [{"type": "concurrency", "name": "main"}, {"type": "concurrency", "name": "second"}],
    "optimizer": {"type": "stepwise"},
}
DEFAULTS = (0.85, 0.70)


def policy(**values: Any) -> ResolvedPolicy:
    return resolve(
        [Layer("p.yaml", {**BRAIN, **values})], lambda kind, _: Parameters if kind == "analyzers" else Nothing
    )


def override(model: str | None, namespace: str | None = None, *, name: str = "main", **changes: Any) -> dict[str, Any]:
    match = {key: value for key, value in (("modelID", model), ("namespace", namespace)) if value is not None}
    bounds = {"bounds": changes.pop("bounds")} if "bounds" in changes else {}
    return {"match": match, **({"analyzers": [{"name": name, **changes}]} if changes else {}), **bounds}


def parameters(model: str | None, namespace: str | None = None, **values: Any) -> dict[str, Any]:
    return override(model, namespace, parameters=values)


FLEET = Fleet(
    [Variant("a", "v1", "granite"), Variant("a", "v2", "llama"), Variant("b", "v1", "llama"), Variant("b", "v2", "opt")]
)
# scopes in order: a/granite, a/llama, b/llama, b/opt


# Settings


def test_without_overrides_every_scope_has_the_same_settings():
    settings = policy().settings(FLEET, "main", DEFAULTS)
    assert settings["per_replica"].tolist() == [10.0] * 4
    assert settings.scale_up.tolist() == [0.85] * 4
    assert settings.scale_down.tolist() == [0.70] * 4
    assert settings.score.tolist() == [1.0] * 4


def test_columns_have_the_field_names_and_types_of_the_parameters():
    settings = policy(overrides=[parameters("llama", ceiling=5)]).settings(FLEET, "main", DEFAULTS)
    assert set(settings.parameters) == set(Parameters.model_fields)
    types = {name: column.dtype.kind for name, column in settings.parameters.items()}
    assert types == {
        "per_replica": "f",
        "ceiling": "f",
        "count": "f",
        "is_strict": "O",
        "label": "O",
        "shares": "O",
        "size": "O",
        "word": "O",
    }
    np.testing.assert_array_equal(settings["ceiling"], [np.nan, 5.0, 5.0, np.nan])
    assert settings["is_strict"].tolist() == [False] * 4
    assert settings["size"][0] == Size()


def test_a_number_that_is_none_everywhere_is_a_column_of_nan():
    column = policy().settings(FLEET, "main", DEFAULTS)["ceiling"]
    assert column.dtype == np.float64
    assert np.isnan(column).all()


def test_columns_are_read_only():
    settings = policy().settings(FLEET, "main", DEFAULTS)
    columns = [*settings.parameters.values(), settings.scale_up, settings.scale_down, settings.score]
    assert not any(column.flags.writeable for column in columns)


def test_an_override_changes_the_named_keys_of_the_models_it_matches():
    found = policy(overrides=[parameters("llama", "b", perReplica=20, size={"ofBatch": 4})])
    settings = found.settings(FLEET, "main", DEFAULTS)
    assert settings["per_replica"].tolist() == [10, 10, 20, 10]
    assert settings["size"][2] == Size(of_batch=4)
    assert settings["count"].tolist() == [3] * 4
    assert found.settings(FLEET, "second", DEFAULTS)["per_replica"].tolist() == [10] * 4


def test_a_later_override_wins_key_by_key_and_an_exact_one_over_patterns():
    found = policy(
        overrides=[
            parameters("llama", "a", perReplica=1, count=1),  # names both: wins whatever follows
            parameters("*", None, perReplica=2, count=2),
            parameters("l*", None, perReplica=4),
            parameters(None, "b", count=5),
        ]
    )
    settings = found.settings(FLEET, "main", DEFAULTS)
    assert settings["per_replica"].tolist() == [2, 1, 4, 2]
    assert settings["count"].tolist() == [2, 1, 5, 5]


def test_parameters_that_are_mappings_merge_by_their_keys_and_lists_as_a_whole():
    found = policy(overrides=[parameters("opt", shares=[1.0, 2.0]), parameters("*t", shares=[3.0])])
    assert found.settings(FLEET, "main", DEFAULTS)["shares"].tolist() == [(), (), (), (3.0,)]


def test_null_is_a_value_for_a_parameter_that_may_be_none():
    entry = {"type": "concurrency", "name": "main", "parameters": {"ceiling": 4.0}}
    found = policy(analyzers=[entry], overrides=[parameters("opt", ceiling=None)])
    np.testing.assert_array_equal(found.settings(FLEET, "main", DEFAULTS)["ceiling"], [4.0, 4.0, 4.0, np.nan])


def test_thresholds_and_score_come_from_override_then_entry_then_analyzer():
    entry = {"type": "concurrency", "name": "main", "score": 2, "thresholds": {"scaleUp": 0.9}}
    found = policy(
        analyzers=[entry],
        overrides=[override("opt", thresholds={"scaleDown": 0.5}), override("llama", "a", score=3)],
    )
    settings = found.settings(FLEET, "main", DEFAULTS)
    assert settings.scale_up.tolist() == [0.9] * 4
    assert settings.scale_down.tolist() == [0.7, 0.7, 0.7, 0.5]
    assert settings.score.tolist() == [2, 3, 2, 2]


def test_thresholds_that_leave_no_room_with_the_analyzers_own_are_refused_when_asked_for():
    found = policy(overrides=[override("opt", thresholds={"scaleUp": 0.6})])
    with pytest.raises(PolicyError) as caught:
        found.settings(FLEET, "main", DEFAULTS)
    assert str(caught.value).startswith(
        "p.yaml: overrides[0].analyzers[0].thresholds: leaves no room between scaleUp 0.6 and scaleDown 0.7; give"
    )
    assert found.settings(FLEET, "main", (0.0, 0.0)).scale_up.tolist() == [0, 0, 0, 0.6]


def test_enabled_is_a_column_too():
    found = policy(overrides=[override("llama", enabled=False), override("llama", "b", enabled=True)])
    assert found.enabled(FLEET, "main").tolist() == [True, False, True, True]
    assert found.enabled(FLEET, "second").tolist() == [True] * 4


def test_thresholds_of_stands_in_for_default_thresholds():
    layers = [Layer("p.yaml", BRAIN)]
    models = {"analyzers": Parameters, "optimizers": Nothing}
    found = resolve(layers, lambda kind, _: models[kind], thresholds_of=lambda _: (0.5, 0.25))
    assert found.settings(FLEET, "main").scale_down.tolist() == [0.25] * 4
    with pytest.raises(ParameterError, match="pass default_thresholds"):
        policy().settings(FLEET, "main")


def test_an_unknown_analyzer_is_refused_by_name():
    for ask in (
        lambda: policy().settings(FLEET, "mian", DEFAULTS),
        lambda: policy().enabled(FLEET, "mian"),
        lambda: policy().parameters("analyzers", "mian"),
    ):
        with pytest.raises(ParameterError) as caught:
            ask()
        assert str(caught.value) == "analyzers: mian: is not in this policy; give one of main, second"


def test_an_empty_fleet_has_empty_columns():
    settings = policy(overrides=[parameters("*", count=1)]).settings(Fleet([]), "main", DEFAULTS)
    assert {len(column) for column in settings.parameters.values()} == {0}
    assert policy().bounds(Fleet([])).behavior_of_scope.tolist() == []


def test_another_fleet_gets_columns_of_its_own():
    found = policy(overrides=[parameters("opt", count=9)])
    other = Fleet([Variant("z", "v", "opt")])
    assert found.settings(FLEET, "main", DEFAULTS)["count"].tolist() == [3, 3, 3, 9]
    assert found.settings(other, "main", DEFAULTS)["count"].tolist() == [9]


def test_each_distinct_set_of_parameters_is_made_once():
    fleet = Fleet(Variant(f"n{row % 7}", f"v{row}", f"m{row}") for row in range(2000))
    sizes = policy(overrides=[parameters(None, "n3", size={"ofBatch": 1})]).settings(fleet, "main", DEFAULTS)["size"]
    assert len({id(size) for size in sizes}) == 2


def test_cluster_level_parameters_are_those_without_overrides():
    found = policy(overrides=[parameters("*", count=1)])
    assert found.parameters("analyzers", "main") == Parameters()
    assert found.parameters("optimizers", "stepwise") == Nothing()


# Bounds


def test_without_overrides_nothing_is_damped():
    bounds = policy().bounds(FLEET)
    assert bounds.behaviors == (UNDAMPED,)
    assert bounds.behavior_of_scope.tolist() == [0] * 4
    assert bounds.settle_seconds.tolist() == [300] * 4
    assert bounds.stale_after.tolist() == [60] * 4
    assert bounds.unavailable_after.tolist() == [300] * 4


def test_bounds_merge_key_by_key_and_equal_behaviors_are_one():
    damped = {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}}}
    rate = {"policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}], "selectPolicy": "Min"}
    found = policy(
        bounds={"settleSeconds": 100, **damped},
        overrides=[
            override("granite", bounds={"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}),
            override("llama", bounds={"behavior": {"scaleUp": rate}, "staleAfterSeconds": 30}),
            override("opt", bounds={"unavailableAfterSeconds": 90}),
        ],
    ).bounds(FLEET)
    down = ScalingRules(stabilization_window_seconds=300.0)
    up = ScalingRules(select_policy="Min", policies=(ScalingPolicy("Percent", 50, 60.0),))
    assert [found.behaviors[row] for row in found.behavior_of_scope] == [
        UNDAMPED,
        Behavior(scale_up=up, scale_down=down),
        Behavior(scale_up=up, scale_down=down),
        Behavior(scale_down=down),
    ]
    assert len(found.behaviors) == 3
    assert found.settle_seconds.tolist() == [100] * 4
    assert found.stale_after.tolist() == [60, 30, 30, 60]
    assert found.unavailable_after.tolist() == [300, 300, 300, 90]


# Explanations


def test_explain_tells_every_value_of_a_model_with_its_origin():
    found = policy(overrides=[parameters("l*", perReplica=4), parameters("llama", "b", count=7)])
    told = {setting.key: setting[1:] for setting in found.explain("llama", "b")}
    assert told["analyzers[0].parameters.perReplica"] == (
        4.0,
        "p.yaml: overrides[0].analyzers[0].parameters.perReplica",
    )
    assert told["analyzers[0].parameters.count"] == (7, "p.yaml: overrides[1].analyzers[0].parameters.count")
    assert told["analyzers[0].parameters.label"] == ("x", "default")
    assert told["analyzers[0].name"] == ("main", "p.yaml: analyzers[0].name")
    assert told["analyzers[1].parameters.perReplica"] == (10.0, "default")
    assert told["mode"] == ("advise", "default")
    elsewhere = {setting.key: setting.value for setting in found.explain("llama", "a")}
    assert elsewhere["analyzers[0].parameters.count"] == 3


def test_explain_follows_a_replaced_list_to_who_replaced_it():
    rate = {"type": "Pods", "value": 4, "periodSeconds": 15}
    found = policy(
        bounds={"behavior": {"scaleUp": {"policies": [rate, rate]}}},
        overrides=[override("opt", bounds={"behavior": {"scaleUp": {"policies": [{**rate, "value": 1}]}}})],
    )
    told = {setting.key: setting[1:] for setting in found.explain("opt", "b")}
    path = "bounds.behavior.scaleUp.policies"
    assert told[f"{path}[0].value"] == (1, f"p.yaml: overrides[0].{path}[0].value")
    assert f"{path}[1].value" not in told


def test_explain_tells_the_thresholds_an_analyzer_brings_itself():
    models = {"analyzers": Parameters, "optimizers": Nothing}
    values = {**BRAIN, "overrides": [override("opt", thresholds={"scaleUp": 0.9})]}
    found = resolve([Layer("p.yaml", values)], lambda kind, _: models[kind], thresholds_of=lambda _: (0.5, 0.25))
    told = {setting.key: setting[1:] for setting in found.explain("opt", "b")}
    path = "analyzers[0].thresholds"
    assert told[f"{path}.scaleUp"] == (0.9, "p.yaml: overrides[0].analyzers[0].thresholds.scaleUp")
    assert told[f"{path}.scaleDown"] == (0.25, "default")
    assert told["analyzers[1].thresholds.scaleUp"] == (0.5, "default")


def test_explain_tells_as_many_values_as_the_policy_has_defaults():
    keys = [setting.key for setting in policy().explain("opt", "b")]
    assert len(keys) == len(set(keys))
    parameters_told = [key for key in keys if key.startswith("analyzers[0].parameters.")]
    assert len(parameters_told) == 8  # every field of Parameters, the nested one by its only key
    assert keys[0] == "mode"


# What records keep


documents = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["observe", "advise", "approve", "act"]),
        "interval": st.sampled_from([1, 15.5, "2m"]),
        "ballot": st.fixed_dictionaries({}, optional={"compat": st.booleans(), "liveIntervals": st.integers(1, 9)}),
        "bounds": st.fixed_dictionaries({}, optional={"settleSeconds": st.floats(0, 1e6)}),
        "overrides": st.lists(
            st.builds(
                parameters,
                st.sampled_from(["llama", "l*", "opt"]),
                st.sampled_from([None, "a", "*"]),
                perReplica=st.integers(1, 9) | st.just("Infinity"),
                ceiling=st.none() | st.floats(0, 1),
            ),
            max_size=3,
        ),
    },
)


@given(documents)
def test_the_plain_form_resolves_to_an_equal_policy(document: dict[str, Any]):
    found = policy(**document)
    stored = json.loads(json.dumps(found.plain, allow_nan=False))
    again = resolve([Layer("record", stored)], lambda kind, _: Parameters if kind == "analyzers" else Nothing)
    assert again == found
    assert again.plain == found.plain
    assert again.digest == found.digest
    for name in ("main", "second"):
        one, other = found.settings(FLEET, name, DEFAULTS), again.settings(FLEET, name, DEFAULTS)
        for column in one.parameters:
            np.testing.assert_array_equal(one[column], other[column])


@given(documents, st.sampled_from(["llama", "granite"]), st.sampled_from(["a", "b"]))
def test_any_policy_that_validates_can_be_explained(document: dict[str, Any], model: str, namespace: str):
    told = policy(**document).explain(model, namespace)
    assert all(origin == "default" or origin.startswith("p.yaml: ") for _, _, origin in told)


def test_the_digest_tells_policies_apart_and_ignores_how_they_are_written():
    assert policy(interval=60).digest == policy(interval="1m").digest
    assert policy(interval=60).digest != policy(interval=61).digest
    assert policy(interval=60) != policy(interval=61)
    assert hash(policy()) == hash(policy())


def test_the_plain_form_is_a_copy():
    found = policy()
    found.plain["mode"] = "act"
    found.plain["bounds"]["settleSeconds"] = 0
    assert found.plain["bounds"]["settleSeconds"] == 300
