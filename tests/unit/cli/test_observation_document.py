"""Written-down observations: what the engine is given for them, and the message for everything that is refused."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

from wva_core.cli.observation_document import read_observation

GOOD = {
    "variants": [
        {
            "name": "decode",
            "namespace": "prod",
            "model": "llama",
            "accelerator": "H100",
            "role": "decode",
            "cost": 9.5,
            "gpusPerReplica": 2,
            "minReplicas": 1,
            "maxReplicas": 6,
            "replicas": {"current": 3, "ready": 2, "pending": 1},
            "desired": 3,
        },
        {"name": "bare", "model": "qwen"},
    ],
    "replicas": [
        {
            "variant": "prod/decode",
            "pod": "decode-1",
            "kvUsage": 0.5,
            "waiting": 0,
            "running": 31,
            "kvCapacityTokens": 412000,
            "arrivalRate": 3.5,
            "inputTokens": 1150,
            "outputTokens": 240,
            "prefixHitRate": 0.25,
            "ttft": 0.5,
            "itl": 0.03125,
            "age": 12,
        },
        {"variant": "prod/decode", "pod": "decode-0", "kvUsage": 0.25},
    ],
    "models": [{"model": "llama", "namespace": "prod", "queueSize": 14, "queueBytes": 4096, "arrivalRate": 6.5}],
    "inventory": {"H100": {"capacity": 8, "used": 7}, "L40S": {}},
}
BARE, DECODE = 0, 1  # rows of the fleet, which is sorted


@pytest.fixture
def good(written):
    return read_observation(written(GOOD))


def test_every_key_of_a_variant_arrives(good):
    variant, table = good.observation.fleet.variants[DECODE], good.observation.variants
    assert (variant.key, variant.model, variant.accelerator, variant.role) == ("prod/decode", "llama", "H100", "decode")
    columns = ("cost", "gpus", "min_replicas", "max_replicas", "current", "ready", "pending")
    assert [getattr(table, name)[DECODE] for name in columns] == [9.5, 2, 1, 6, 3, 2, 1]
    assert (good.memory.target[DECODE], good.memory.target_since[DECODE]) == (3, good.observation.time)


def test_a_bare_variant_has_the_defaults_and_nothing_is_known_of_its_replicas(good):
    variant, table = good.observation.fleet.variants[BARE], good.observation.variants
    assert (variant.key, variant.accelerator, variant.role) == ("default/bare", "", "")
    assert [getattr(table, name)[BARE] for name in ("cost", "gpus", "min_replicas", "max_replicas")] == [
        10,
        1,
        0,
        math.inf,
    ]
    assert np.isnan([table.current[BARE], table.ready[BARE], table.pending[BARE], good.memory.target[BARE]]).all()


def test_every_signal_of_a_replica_arrives_and_a_key_left_out_is_unknown(good):
    replicas = good.observation.replicas
    assert replicas.index.pods == ("decode-0", "decode-1")
    expected = {
        "kv_usage": [0.25, 0.5],
        "waiting": [math.nan, 0],
        "running": [math.nan, 31],
        "kv_capacity_tokens": [math.nan, 412000],
        "arrival_rate": [math.nan, 3.5],
        "input_tokens": [math.nan, 1150],
        "output_tokens": [math.nan, 240],
        "prefix_hit_rate": [math.nan, 0.25],
        "ttft": [math.nan, 0.5],
        "itl": [math.nan, 0.03125],
    }
    for signal, values in expected.items():
        np.testing.assert_array_equal(replicas[signal], values, err_msg=signal)
    assert set(replicas.columns) == set(expected)


def test_the_age_of_a_row_is_that_of_all_its_signals_and_zero_where_it_is_left_out(good):
    for signal in ("kv_usage", "itl"):
        assert good.observation.replicas.age(signal)[1] == 12
    assert good.observation.replicas.age("kv_usage")[0] == 0


def test_signals_of_a_model_reach_its_scopes_only(good):
    scopes = good.observation.scopes
    assert [scope.label for scope in good.observation.fleet.scopes] == ["default/qwen", "prod/llama/decode"]
    for signal, value in {"queue_size": 14, "queue_bytes": 4096, "arrival_rate": 6.5}.items():
        np.testing.assert_array_equal(scopes[signal], [math.nan, value], err_msg=signal)


def test_an_inventory_without_numbers_is_not_known(good):
    inventory = good.observation.inventory
    assert inventory.accelerators == ("H100", "L40S")
    np.testing.assert_array_equal(inventory.capacity, [8, math.nan])
    np.testing.assert_array_equal(inventory.used, [7, math.nan])


@pytest.mark.parametrize(
    ("given", "current", "ready", "pending"),
    [
        ({"current": 3}, 3, 3, 0),
        ({"current": 3, "ready": 1}, 3, 1, 2),
        ({"current": 3, "pending": 1}, 3, 2, 1),
        ({"current": 1, "pending": 2}, 1, 0, 2),
        ({"ready": 2, "pending": 1}, 3, 2, 1),
        ({"ready": 2}, math.nan, 2, math.nan),
        ({"pending": 1}, math.nan, math.nan, 1),
        ({}, math.nan, math.nan, math.nan),
        ({"current": 0}, 0, 0, 0),
    ],
)
def test_counts_complete_each_other_as_far_as_they_are_known(written, given, current, ready, pending):
    table = read_observation(
        written({"variants": [{"name": "a", "model": "m", "replicas": given}]})
    ).observation.variants
    np.testing.assert_array_equal([table.current[0], table.ready[0], table.pending[0]], [current, ready, pending])


@pytest.mark.parametrize("key", ["maxReplicas", "minReplicas", "desired"])
def test_zero_as_a_maximum_is_no_limit_and_as_a_target_is_none(written, key):
    seen = read_observation(written({"variants": [{"name": "a", "model": "m", key: 0}]}))
    assert seen.observation.variants.max_replicas[0] == math.inf
    assert math.isnan(seen.memory.target[0])


def test_replicas_need_no_pod_names(written):
    rows = [{"variant": "default/a", "kvUsage": 0.5}] * 2
    seen = read_observation(written({"variants": [{"name": "a", "model": "m"}], "replicas": rows}))
    assert len(seen.observation.replicas) == 2


def put(*path, value):
    """A change of the good document: `value` at the path."""

    def change(document):
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return change


def append(*path, value):
    def change(document):
        for step in path:
            document = document[step]
        document.append(value)

    return change


def drop(key):
    return lambda document: document.pop(key)


AMOUNT = "give a finite number of at least 0, or leave it out where it is not known"
SHARE = "give a number from 0 to 1, or leave it out where it is not known"
COUNT = "give a whole number from 0 to 2147483647"

REFUSED = {
    "unknown key": (
        put("variants", 0, "minreplicas", value=1),
        (
            "variants[0].minreplicas: is not a known key (got 1); did you mean 'minReplicas'? known keys: name,"
            " namespace, model, accelerator, role, serviceClass, cost, gpusPerReplica, minReplicas, maxReplicas,"
            " replicas, desired"
        ),
    ),
    "unknown top key": (
        put("models_", value=[]),
        (
            "models_: is not a known key (got []); did you mean 'models'? known keys: variants, replicas, models,"
            " inventory"
        ),
    ),
    "snake case": (
        put("replicas", 0, "kv_usage", value=0.5),
        (
            "replicas[0].kv_usage: is not a known key (got 0.5); did you mean 'kvUsage'? known keys: variant, pod,"
            " kvUsage, waiting, running, kvCapacityTokens, maxBatch, arrivalRate, requestRate, inputTokenRate,"
            " outputTokenRate, inputTokens, outputTokens, prefixHitRate, ttft, itl, age"
        ),
    ),
    "no variants": (drop("variants"), "variants: is missing; add it: a list"),
    "text for a number": (
        put("replicas", 0, "waiting", value="3"),
        f"replicas[0].waiting: is not a number (got '3'); {AMOUNT}",
    ),
    "truth value for a number": (
        put("replicas", 0, "kvUsage", value=True),
        f"replicas[0].kvUsage: is not a number (got True); {SHARE}",
    ),
    "number for a text": (
        put("replicas", 0, "pod", value=1),
        "replicas[0].pod: is not a text (got 1); give a text that is not empty, in quotes",
    ),
    "empty name": (
        put("variants", 0, "name", value=""),
        "variants[0].name: is empty (got ''); give a text that is not empty",
    ),
    "negative count": (
        put("variants", 0, "replicas", "current", value=-1),
        f"variants[0].replicas.current: is out of range (got -1); {COUNT}",
    ),
    "broken count": (
        put("variants", 0, "replicas", "current", value=1.5),
        f"variants[0].replicas.current: is not a whole number (got 1.5); {COUNT}",
    ),
    "count beyond a scale target": (
        put("variants", 0, "desired", value=2**31),
        f"variants[0].desired: is out of range (got 2147483648); {COUNT}",
    ),
    "negative queue": (
        put("replicas", 0, "waiting", value=-1),
        f"replicas[0].waiting: is out of range (got -1); {AMOUNT}",
    ),
    "share above one": (
        put("replicas", 0, "kvUsage", value=1.01),
        f"replicas[0].kvUsage: is out of range (got 1.01); {SHARE}",
    ),
    "share in percent": (
        put("replicas", 0, "prefixHitRate", value=31),
        f"replicas[0].prefixHitRate: is out of range (got 31); {SHARE}",
    ),
    "NaN": (
        put("replicas", 0, "ttft", value=math.nan),
        f"replicas[0].ttft: is out of range (got nan); {AMOUNT}",
    ),
    "infinite age": (
        put("replicas", 0, "age", value=math.inf),
        f"replicas[0].age: is out of range (got inf); {AMOUNT}",
    ),
    "negative cost": (
        put("variants", 0, "cost", value=-1),
        "variants[0].cost: is out of range (got -1); give a finite number of USD per hour, at least 0",
    ),
    "infinite cost": (
        put("variants", 0, "cost", value=math.inf),
        "variants[0].cost: is out of range (got inf); give a finite number of USD per hour, at least 0",
    ),
    "no GPU": (
        put("variants", 0, "gpusPerReplica", value=0),
        "variants[0].gpusPerReplica: is out of range (got 0); give a whole number of at least 1",
    ),
    "unknown role": (
        put("variants", 0, "role", value="decoder"),
        "variants[0].role: is not known (got 'decoder'); did you mean 'decode'? give one of prefill, decode, both",
    ),
    "slash in a name": (
        put("variants", 0, "name", value="prod/decode"),
        "variants[0].name: contains a slash (got 'prod/decode'); give name and namespace apart",
    ),
    "minimum above maximum": (
        put("variants", 0, "minReplicas", value=7),
        "variants[0].minReplicas: is above maxReplicas 6 (got 7); lower it, or raise maxReplicas (0 is no limit)",
    ),
    "more ready than there are": (
        put("variants", 0, "replicas", "ready", value=4),
        "variants[0].replicas.ready: is above current 3 (got 4); count in current every replica there is, ready or not",
    ),
    "variant twice": (
        append("variants", value={"name": "bare", "namespace": "default", "model": "other"}),
        (
            "variants[2].name: is a variant already, variants[1] (got 'default/bare'); give every variant of a"
            " namespace a name of its own"
        ),
    ),
    "replica twice": (
        append("replicas", value={"variant": "prod/decode", "pod": "decode-0"}),
        (
            "replicas[2].pod: is listed already, replicas[1] (got 'decode-0'); list every engine instance of a variant"
            " once"
        ),
    ),
    "replica of nobody": (
        put("replicas", 0, "variant", value="decode"),
        (
            "replicas[0].variant: is not a variant of this document (got 'decode'); did you mean 'prod/decode'? give"
            " namespace/name of an entry under variants"
        ),
    ),
    "model of nobody": (
        put("models", 0, "model", value="lama"),
        (
            "models[0].model: is served by no variant in namespace prod (got 'lama'); did you mean 'llama'? correct"
            " model and namespace, or list its variants"
        ),
    ),
    "model twice": (
        append("models", value={"model": "llama", "namespace": "prod"}),
        "models[1].model: is listed twice in its namespace (got 'llama'); keep one entry for each model",
    ),
    "list for a mapping": (put("inventory", value=[]), "inventory: is not a mapping (got []); give a mapping"),
    "number for a mapping": (
        put("inventory", "H100", value=8),
        "inventory.H100: is not a mapping (got 8); give a mapping with the keys capacity, used",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused_with_file_key_value_and_remedy(wva, written, change, message):
    document = copy.deepcopy(GOOD)
    change(document)
    path = written(document)
    result = wva("decide", path)
    assert result.exit_code == 2
    assert result.stderr == f"error: {path}: {message}\n"
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.yaml", "", "is empty; write a mapping with the keys variants, replicas, models, inventory"),
        ("twice.yaml", "variants: []\nvariants: []\n", "line 2, column 1: the key 'variants' is given twice, first on"),
        ("broken.yaml", "variants: [\n", "line 2, column 1: is not valid YAML"),
        ("broken.json", '{"variants": }', "line 1, column 14: is not valid JSON: Expecting value; correct the syntax"),
        ("list.json", "[]", "is not a mapping (got []); give a mapping with the keys variants"),
    ],
)
def test_a_file_that_is_no_document_is_refused(wva, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    result = wva("decide", path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {path}: {message}")
    assert result.stderr.count("\n") == 1


def test_a_file_that_is_not_there_is_refused(wva, tmp_path):
    result = wva("decide", tmp_path / "nothing.yaml")
    assert result.exit_code == 2
    assert result.stderr == f"error: {tmp_path}/nothing.yaml: does not exist; correct the path\n"


def test_a_policy_that_is_wrong_is_refused_and_nothing_is_decided(wva, written):
    policy = written({"bounds": {"settleSecond": 3}}, "policy.json")
    result = wva("decide", written(GOOD), "--policy", policy)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(
        f"error: {policy}: bounds.settleSecond: is not a known key (got 3); did you mean 'settleSeconds'?"
    )
