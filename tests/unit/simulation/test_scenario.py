"""Scenario files: what they become, and what is said of each thing that cannot be used."""

from __future__ import annotations

import copy
import itertools
import json
import math
from pathlib import Path

import pytest
import yaml

from wva_core.errors import InfeasibleError, ScenarioError, TraceError
from wva_core.numerics.scaling_behavior import HPA_DEFAULT_BEHAVIOR, Behavior, ScalingPolicy, ScalingRules
from wva_core.simulation.scenario import HpaContender, StaticContender, WvaContender, folder_name, read_scenario

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
BASE = {
    "name": "small",
    "objectives": {"ttftSeconds": 5.0, "tpotSeconds": 0.15},
    "models": [
        {
            "model": LLAMA,
            "namespace": "chat",
            "arrivals": {"law": "poisson", "rate": 1.0, "durationSeconds": 600},
            "variants": [{"name": "a", "profile": {"accelerator": "L4", "kind": "derived"}, "maxReplicas": 8}],
        }
    ],
    "contenders": [
        {"name": "wva", "wva": {}},
        {"name": "hpa", "hpa": {"metric": "waiting", "target": 1}},
        {"name": "static", "static": {"replicas": 2}},
    ],
}
MODEL = ("models", 0)
VARIANT = (*MODEL, "variants", 0)
ARRIVALS = (*MODEL, "arrivals")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(*changes, base=BASE):
    """Writes the base scenario with (path, value) changes as s.yaml and returns the path."""
    document = copy.deepcopy(base)
    for path, value in changes:
        *above, last = path
        place = document
        for step in above:
            place = place[step]
        if value is None:
            del place[last]
        elif isinstance(place, list) and last == len(place):
            place.append(value)
        else:
            place[last] = value
    Path("s.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return "s.yaml"


def trace_file(*rows, name="t.csv"):
    Path(name).write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows]) + "\n", encoding="utf-8")
    return name


def variant(name="a", accelerator="L4", **more):
    return {"name": name, "profile": {"accelerator": accelerator, "kind": "derived"}, **more}


# --------------------------------------------------------------------------------------------------------------------
# What a file becomes


def test_what_is_left_out_has_the_documented_default():
    scenario = read_scenario(written())
    (deployment,) = scenario.deployments
    assert (scenario.seed, scenario.scrape_s, scenario.router, scenario.rule.warmup_s) == (1, 15.0, "least-loaded", 0.0)
    assert (deployment.variant, deployment.model) == ("chat/a", f"chat/{LLAMA}")
    assert (deployment.initial_replicas, scenario.min_replicas, scenario.max_replicas) == (
        1,
        {"chat/a": 1},
        {"chat/a": 8},
    )
    assert (deployment.start_up.law, deployment.start_up.mean_s, deployment.drain_timeout_s) == (
        "constant",
        120.0,
        math.inf,
    )
    assert scenario.request_timeout_s == math.inf
    assert scenario.warnings == ()
    wva, hpa, static = scenario.contenders
    assert wva == WvaContender("wva", "", "saturation-v1", None, {}, None, 0.0)
    assert hpa == HpaContender("hpa", "", "waiting", 1.0, HPA_DEFAULT_BEHAVIOR, 0.1)
    assert static == StaticContender("static", "", {"chat/a": 2})


def test_price_is_that_of_the_accelerators_of_a_replica():
    one, two = (
        read_scenario(written(((*VARIANT, "gpusPerReplica"), count))).deployments[0].cost_usd_per_h for count in (1, 2)
    )
    assert two == 2 * one > 0
    assert read_scenario(written(((*VARIANT, "cost"), 3.5))).deployments[0].cost_usd_per_h == 3.5


def test_drawn_traffic_lasts_as_long_as_it_says_not_until_its_last_request():
    assert read_scenario(written()).duration_s == 600.0


def test_a_trace_is_run_to_its_last_request():
    trace_file("0,10,10", "2.5,10,10", "7.25,10,10")
    scenario = read_scenario(written((ARRIVALS, None), ((*MODEL, "trace"), {"file": "t.csv"})))
    assert scenario.duration_s == 8.0
    assert len(scenario.traces[f"chat/{LLAMA}"]) == 3


def test_duration_cuts_a_trace():
    trace_file("0,10,10", "2.5,10,10", "7.25,10,10")
    scenario = read_scenario(
        written((ARRIVALS, None), ((*MODEL, "trace"), {"file": "t.csv"}), (("durationSeconds",), 5))
    )
    assert scenario.duration_s == 5.0
    assert len(scenario.traces[f"chat/{LLAMA}"]) == 2


def test_files_are_found_beside_the_scenario():
    Path("inside").mkdir()
    trace_file("0,10,10", name="inside/t.csv")
    Path("inside/p.yaml").write_text("profile: saturation-v1\n", encoding="utf-8")
    document = json.loads(json.dumps(BASE))
    del document["models"][0]["arrivals"]
    document["models"][0]["trace"] = {"file": "t.csv"}
    document["contenders"] = [{"name": "w", "wva": {"policy": "p.yaml"}}]
    Path("inside/s.json").write_text(json.dumps(document), encoding="utf-8")
    scenario = read_scenario("inside/s.json")
    assert len(scenario.traces[f"chat/{LLAMA}"]) == 1
    assert scenario.contenders[0].policy_file == Path("inside/p.yaml")
    assert scenario.contenders[0].profile == ""


def test_another_trace_and_another_seed_take_the_place_of_the_written_ones():
    trace_file("0,10,10", "1,20,20")
    scenario = read_scenario(written(), trace="t.csv", seed=7)
    assert scenario.seed == 7
    assert scenario.traces[f"chat/{LLAMA}"].input_tokens.tolist() == [10, 20]
    assert scenario.trace_notes[f"chat/{LLAMA}"] == ("rates as given", "")


def test_another_seed_draws_other_requests():
    one, same, other = (read_scenario(written(), seed=seed).traces[f"chat/{LLAMA}"] for seed in (1, 1, 2))
    assert one.arrival_s.tolist() == same.arrival_s.tolist() != other.arrival_s.tolist()


def test_only_keeps_the_named_contenders_in_their_order():
    scenario = read_scenario(written(), only=("static", "wva"))
    assert [contender.name for contender in scenario.contenders] == ["wva", "static"]


def test_hpa_behavior_keeps_the_defaults_of_what_is_left_out():
    behavior = {
        "scaleUp": {"selectPolicy": "Min"},
        "scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]},
    }
    scenario = read_scenario(written((("contenders", 0, "wva"), {"hpa": {"behavior": behavior, "tolerance": 0.0}})))
    up, down = HPA_DEFAULT_BEHAVIOR.scale_up, HPA_DEFAULT_BEHAVIOR.scale_down
    assert scenario.contenders[0].hpa == Behavior(
        ScalingRules(up.stabilization_window_seconds, "Min", up.policies),
        ScalingRules(down.stabilization_window_seconds, "Max", (ScalingPolicy("Pods", 1, 60),)),
    )
    assert scenario.contenders[0].tolerance == 0.0


@pytest.mark.parametrize(("value", "behavior"), [(True, HPA_DEFAULT_BEHAVIOR), (False, None)])
def test_hpa_behind_may_be_just_switched(value, behavior):
    assert read_scenario(written((("contenders", 0, "wva"), {"hpa": value}))).contenders[0].hpa == behavior


def test_static_fleet_names_variants_with_or_without_namespace_and_leaves_others_empty():
    models = [
        {"model": LLAMA, "namespace": "chat", "variants": [variant("a"), variant("b")]},
        {"model": LLAMA, "namespace": "code", "variants": [variant("c")]},
    ]
    scenario = read_scenario(
        written(
            (("models",), models),
            (("durationSeconds",), 60),
            (("contenders",), [{"name": "s", "static": {"replicas": {"a": 2, "code/c": 1}}}]),
        )
    )
    assert scenario.contenders[0].replicas == {"chat/a": 2, "chat/b": 0, "code/c": 1}


def test_signals_are_pinned_by_the_names_of_documents():
    scenario = read_scenario(written(((*VARIANT, "signals"), {"kvUsage": 0.95, "waiting": 0})))
    assert scenario.deployments[0].pinned_signals == {"kv_usage": 0.95, "waiting": 0.0}


def test_gpu_types_are_spelled_as_in_the_table():
    assert read_scenario(written((("gpus",), {"l4": 9}))).gpus == {"L4": 9}


def test_order_of_models_and_variants_changes_nothing():
    models = [
        {
            "model": LLAMA,
            "namespace": namespace,
            "arrivals": {"law": "poisson", "rate": 1.0, "durationSeconds": 60},
            "variants": [variant("a"), variant("b", "L40S")],
        }
        for namespace in ("chat", "code")
    ]
    turned = [{**model, "variants": model["variants"][::-1]} for model in models[::-1]]
    contenders = (("contenders",), [{"name": "w", "wva": {}}])
    one, other = (read_scenario(written((("models",), order), contenders)) for order in (models, turned))
    assert one.deployments == other.deployments
    assert one.fleet.keys == other.fleet.keys == ("chat/a", "chat/b", "code/a", "code/b")
    arrivals = [
        {model: trace.arrival_s.tolist() for model, trace in scenario.traces.items()} for scenario in (one, other)
    ]
    assert arrivals[0] == arrivals[1]
    assert arrivals[0][f"chat/{LLAMA}"] != arrivals[0][f"code/{LLAMA}"]


@pytest.mark.parametrize(
    ("arrivals", "mean"),
    [
        ({"law": "gamma", "rate": 2.0, "cv": 1.5}, 2.0),
        ({"law": "ramp", "rate": 1.0, "endRate": 3.0}, 2.0),
        # 600 of 6000 s at 11/s, the rest at 1/s
        ({"law": "spike", "rate": 1.0, "spikeRate": 11.0, "spikeStartSeconds": 60, "spikeLengthSeconds": 600}, 2.0),
    ],
)
def test_laws_of_arrival_have_the_rate_that_is_written(arrivals, mean):
    scenario = read_scenario(
        written((ARRIVALS, {**arrivals, "durationSeconds": 6000}), ((*VARIANT, "maxReplicas"), 100))
    )
    requests = len(scenario.traces[f"chat/{LLAMA}"])
    assert requests == pytest.approx(6000 * mean, rel=0.06)  # four standard errors: cv 1.5 / sqrt(12000) is 1.4 %


def test_lengths_can_be_those_of_a_trace():
    trace_file("0,11,12", "1,21,22")
    scenario = read_scenario(written(((*ARRIVALS, "lengthsFrom"), "t.csv")))
    trace = scenario.traces[f"chat/{LLAMA}"]
    assert set(zip(trace.input_tokens.tolist(), trace.output_tokens.tolist(), strict=True)) == {(11, 12), (21, 22)}


def test_scaled_trace_says_so():
    trace_file(*(f"{second},10,10" for second in range(100)))
    scenario = read_scenario(
        written((ARRIVALS, None), ((*MODEL, "trace"), {"file": "t.csv", "scale": 2.5, "attribution": "Somebody."}))
    )
    note, attribution = scenario.trace_notes[f"chat/{LLAMA}"]
    assert note == (
        "2.5 times the published rate (copies shifted in time on top of each other, thinned to the rest);"
        " time is not compressed"
    )
    assert attribution == "Somebody."


# --------------------------------------------------------------------------------------------------------------------
# Names of folders


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("saturation-v1", "saturation-v1"),
        ("HPA on queue/length", "HPA-on-queue-length"),
        ("..", "-."),
        (".hidden", "-hidden"),
        ("v1.2", "v1.2"),
    ],
)
def test_folder_of_a_contender_stays_inside_its_parent(name, folder):
    assert folder_name(name) == folder
    assert (Path("records") / folder).resolve().parent == Path("records").resolve()


# --------------------------------------------------------------------------------------------------------------------
# What is refused, word for word


def refusal(error=ScenarioError, only=(), trace=None, changes=()):
    with pytest.raises(error) as caught:
        read_scenario(written(*changes), only=only, trace=trace)
    return str(caught.value)


KNOWN_VARIANT_KEYS = (
    "known keys: name, profile, cost, gpusPerReplica, minReplicas, maxReplicas, initialReplicas, startUp,"
    " drainTimeoutSeconds, signals"
)
PLACE = "s.yaml: models[0].variants[0]"
REFUSED = {
    "unknown key": (
        [((*VARIANT, "minReplica"), 2)],
        f"{PLACE}.minReplica: is not a known key (got 2); did you mean 'minReplicas'? {KNOWN_VARIANT_KEYS}",
    ),
    "key in the spelling of Python": (
        [((*VARIANT, "min_replicas"), 2)],
        f"{PLACE}.min_replicas: is not a known key (got 2); did you mean 'minReplicas'? {KNOWN_VARIANT_KEYS}",
    ),
    "wrong type": (
        [((*VARIANT, "maxReplicas"), "8")],
        f"{PLACE}.maxReplicas: is not a whole number (got '8'); give a whole number from 1 to 10000",
    ),
    "out of range": (
        [(("scrapeSeconds",), 0.5)],
        "s.yaml: scrapeSeconds: is out of range (got 0.5); give a number from 1 to 300",
    ),
    "objective nobody can meet": (
        [(("objectives", "ttftSeconds"), 0)],
        "s.yaml: objectives.ttftSeconds: is out of range (got 0); give a number above 0",
    ),
    "missing": (
        [(("objectives", "tpotSeconds"), None)],
        "s.yaml: objectives.tpotSeconds: is missing; add it: a number above 0",
    ),
    "name that Kubernetes would not take": (
        [((*VARIANT, "name"), "A b")],
        f"{PLACE}.name: is not a name in Kubernetes (got 'A b'); use up to 63 small letters, digits, '-' and '.'",
    ),
    "trace and arrivals": (
        [((*MODEL, "trace"), {"file": "t.csv"})],
        "s.yaml: models[0].trace: gives traffic, and so does arrivals (got 't.csv'); remove one of them",
    ),
    "no traffic and no duration": (
        [(ARRIVALS, None)],
        (
            "s.yaml: durationSeconds: is missing, and no model has traffic that would say how long to run; give it, or"
            " give trace or arrivals to a model"
        ),
    ),
    "unknown law": (
        [((*ARRIVALS, "law"), "poison")],
        (
            "s.yaml: models[0].arrivals.law: is not known (got 'poison'); did you mean 'poisson'? give one of poisson,"
            " gamma, ramp, spike"
        ),
    ),
    "key of another law": (
        [((*ARRIVALS, "cv"), 2.0)],
        "s.yaml: models[0].arrivals.cv: means nothing to law poisson (got 2.0); remove it, or choose law gamma",
    ),
    "key a law needs": (
        [((*ARRIVALS, "law"), "ramp")],
        "s.yaml: models[0].arrivals.law: needs endRate (got 'ramp'); add it, or choose another law",
    ),
    "spike after the end": (
        [
            (
                ARRIVALS,
                {
                    "law": "spike",
                    "rate": 1.0,
                    "spikeRate": 2.0,
                    "spikeStartSeconds": 700,
                    "spikeLengthSeconds": 3,
                    "durationSeconds": 600,
                },
            )
        ],
        (
            "s.yaml: models[0].arrivals.spikeStartSeconds: is not before the end of the traffic, 600 s (got 700.0);"
            " lower it"
        ),
    ),
    "lengths twice": (
        [((*ARRIVALS, "lengthsFrom"), "t.csv"), ((*ARRIVALS, "inputTokens"), 5)],
        (
            "s.yaml: models[0].arrivals.lengthsFrom: gives lengths, and so do inputTokens and outputTokens (got"
            " 't.csv'); remove it, or both of them"
        ),
    ),
    "more requests than fit": (
        [((*ARRIVALS, "rate"), 1e6)],
        (
            "s.yaml: models[0].arrivals.durationSeconds: makes up to 6e+08 requests, more than a simulation holds,"
            " 20,000,000 (got 600.0); lower it, or the rate"
        ),
    ),
    "start-up of another law": (
        [(("startUp",), {"law": "uniform", "meanSeconds": 60})],
        (
            "s.yaml: startUp.meanSeconds: means nothing to law uniform (got 60.0); remove it, or choose law constant or"
            " lognormal"
        ),
    ),
    "start-up the wrong way round": (
        [((*VARIANT, "startUp"), {"law": "uniform", "lowSeconds": 90, "highSeconds": 60})],
        f"{PLACE}.startUp.lowSeconds: is above highSeconds, 60 (got 90.0); swap them",
    ),
    "minimum above maximum": (
        [((*VARIANT, "minReplicas"), 9)],
        f"{PLACE}.minReplicas: is above maxReplicas, 8 (got 9); lower it, or raise the other",
    ),
    "more to begin with than allowed": (
        [((*VARIANT, "initialReplicas"), 9)],
        f"{PLACE}.initialReplicas: is above maxReplicas, 8 (got 9); lower it, or raise the other",
    ),
    "batch above the token budget": (
        [((*VARIANT, "profile", "maxBatchedTokens"), 8)],
        (
            f"{PLACE}.profile.maxBatchedTokens: must be at least maxBatch, which is 256 (got 8); raise it, or lower"
            " maxBatch"
        ),
    ),
    "share as a percentage": (
        [((*VARIANT, "signals"), {"kvUsage": 95})],
        f"{PLACE}.signals.kvUsage: is out of range (got 95); give a number from 0 to 1",
    ),
    "variant twice": (
        [((*MODEL, "variants", 1), variant())],
        (
            "s.yaml: models[0].variants[1].name: is the second variant of this name in namespace chat (got 'a'); give"
            " each variant of a namespace a name of its own"
        ),
    ),
    "model twice": (
        [(("models", 1), {"model": LLAMA, "namespace": "chat", "variants": [variant("b")]})],
        (
            f"s.yaml: models[1].model: is a second entry for this model in this namespace (got '{LLAMA}'); put its"
            " variants into the first entry, or give it another namespace"
        ),
    ),
    "unknown GPU type": (
        [(("gpus",), {"L40": 4})],
        "s.yaml: gpus: names a type on which no variant runs (got 'L40'); did you mean 'L4'? name one of L4",
    ),
    "initial fleet beyond the GPUs": (
        [(("gpus",), {"L4": 3}), ((*VARIANT, "initialReplicas"), 4)],
        "s.yaml: gpus.L4: is less than the 4 that initialReplicas takes (got 3); raise it, or lower the replicas",
    ),
    "static fleet beyond the GPUs": (
        [(("gpus",), {"L4": 3}), (("contenders", 2, "static", "replicas"), 4)],
        (
            "s.yaml: gpus.L4: is less than the 4 that contenders[2].static.replicas takes (got 3); raise it, or lower"
            " the replicas"
        ),
    ),
    "static fleet above the maximum": (
        [(("contenders", 2, "static", "replicas"), 9)],
        (
            "s.yaml: contenders[2].static.replicas: is above maxReplicas of chat/a, 8 (got 9); lower it, or raise"
            " maxReplicas"
        ),
    ),
    "static fleet of a negative size": (
        [(("contenders", 2, "static", "replicas"), {"a": -1})],
        "s.yaml: contenders[2].static.replicas.a: is out of range (got -1); give a whole number from 0 to 10000",
    ),
    "static fleet of an unknown variant": (
        [(("contenders", 2, "static", "replicas"), {"chat/b": 1})],
        (
            "s.yaml: contenders[2].static.replicas: names a variant that this scenario does not have (got 'chat/b');"
            " did you mean 'chat/a'? name one of chat/a"
        ),
    ),
    "static number for two variants": (
        [((*MODEL, "variants", 1), variant("b"))],
        (
            "s.yaml: contenders[2].static.replicas: does not say how many of each of the 2 variants (got 2); give a"
            " mapping with some of chat/a, chat/b"
        ),
    ),
    "contender twice": (
        [(("contenders", 3), {"name": "wva", "static": {"replicas": 1}})],
        "s.yaml: contenders[3].name: is the second contender of this name (got 'wva'); rename one of them",
    ),
    "contenders with one folder": (
        [(("contenders", 0, "name"), "a/b"), (("contenders", 3), {"name": "A b", "static": {"replicas": 1}})],
        (
            "s.yaml: contenders[3].name: would keep its records in the same folder as 'a/b', A-b (got 'A b'); rename"
            " one of them"
        ),
    ),
    "contender of two kinds": (
        [(("contenders", 0, "static"), {"replicas": 1})],
        "s.yaml: contenders[0]: is wva and static at once (got 'wva'); keep one of them",
    ),
    "contender of no kind": (
        [(("contenders", 0, "wva"), None)],
        "s.yaml: contenders[0]: is neither wva, hpa nor static (got 'wva'); add one of them",
    ),
    "name too long for a folder": (
        [(("contenders", 0, "name"), "x" * 61)],
        (
            f"s.yaml: contenders[0].name: has 61 characters (got '{'x' * 61}'); use up to 60, and put the rest into"
            " description"
        ),
    ),
    "behavior out of range": (
        [(("contenders", 0, "wva", "hpa"), {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 4000}}})],
        (
            "s.yaml: contenders[0].wva.hpa.behavior.scaleDown.stabilizationWindowSeconds: is out of range (got 4000);"
            " give a number from 0 to 3600"
        ),
    ),
    "unknown metric": (
        [(("contenders", 1, "hpa", "metric"), "kvusage")],
        (
            "s.yaml: contenders[1].hpa.metric: is not known (got 'kvusage'); did you mean 'kvUsage'? give one of"
            " waiting, running, kvUsage"
        ),
    ),
    "warm-up longer than the run": (
        [(("warmupSeconds",), 600)],
        (
            "s.yaml: warmupSeconds: leaves nothing to score of the 600 s that the scenario lasts (got 600.0); lower it,"
            " or raise durationSeconds"
        ),
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(changes, message):
    assert refusal(changes=changes) == message


@pytest.mark.parametrize(
    ("path", "value", "asked"),
    [
        ((*MODEL, "model"), f"{LLAMA}t", f"model={LLAMA}t, accelerator=L4, tp=1, kind=derived"),
        ((*VARIANT, "profile", "accelerator"), "L5", f"model={LLAMA}, accelerator=L5, tp=1, kind=derived"),
    ],
)
def test_unknown_model_or_accelerator_names_the_nearest_profiles(path, value, asked):
    message = refusal(changes=[(path, value)])
    assert message.startswith(
        f"{PLACE}.profile: {asked} is not in the table of profiles; choose a row with step times, such as:"
        f" {LLAMA} L4 TP 1 (bf16, vllm, derived); {LLAMA} L40S TP 1 (bf16, vllm, derived);"
    )


def test_ambiguous_static_variant_is_refused():
    models = [{"model": LLAMA, "namespace": name, "variants": [variant()]} for name in ("chat", "code")]
    message = refusal(
        changes=[
            (("models",), models),
            (("durationSeconds",), 60),
            (("contenders", 2, "static", "replicas"), {"a": 1}),
        ]
    )
    assert message == (
        "s.yaml: contenders[2].static.replicas: names variants of several namespaces (got 'a'); name one of chat/a,"
        " code/a"
    )


def test_only_an_unknown_contender_is_refused():
    assert refusal(only=("stattic",)) == (
        "s.yaml: --only: is not a contender of this scenario (got 'stattic'); did you mean 'static'? name one of wva,"
        " hpa, static"
    )


def test_one_trace_for_two_models_is_refused():
    second = {"model": LLAMA, "namespace": "code", "variants": [variant()]}
    assert refusal(trace="t.csv", changes=[(("models", 1), second)]) == (
        "s.yaml: --trace: cannot stand for all 2 models of the scenario (got 't.csv'); run a scenario with one model,"
        " or name the traces in the scenario"
    )


@pytest.mark.parametrize("as_override", [False, True])
def test_malformed_row_names_file_line_and_column(as_override):
    trace_file("0,10,10", "1,x,10")
    changes = [] if as_override else [(ARRIVALS, None), ((*MODEL, "trace"), {"file": "t.csv"})]
    message = refusal(TraceError, trace="t.csv" if as_override else None, changes=changes)
    assert message == ("t.csv: line 3, column input_tokens: is not a number (got 'x'); write a plain decimal number")


def test_scale_that_leaves_nothing_is_refused():
    trace_file("0,10,10")
    message = refusal(changes=[(ARRIVALS, None), ((*MODEL, "trace"), {"file": "t.csv", "scale": 1e-6})])
    assert message == "s.yaml: models[0].trace.scale: leaves no request of the trace (got 1e-06); raise it"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "s.yaml: is empty; write a mapping with the keys name, description,"),
        ("- 1", "s.yaml: is not a mapping (got [1]); give a mapping with the keys name, description,"),
        ("name: a\nname: b\n", "s.yaml: line 2, column 1: the key 'name' is given twice, first on line 1; keep one"),
    ],
)
def test_file_that_is_no_scenario_is_refused(content, problem):
    Path("s.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ScenarioError) as caught:
        read_scenario("s.yaml")
    assert str(caught.value).startswith(problem)


def test_missing_file_is_refused():
    with pytest.raises(ScenarioError) as caught:
        read_scenario("none.yaml")
    assert str(caught.value) == "none.yaml: does not exist; correct the path"


# --------------------------------------------------------------------------------------------------------------------
# Demand that cannot be served


def test_demand_beyond_the_largest_fleet_throughout_is_refused():
    message = refusal(InfeasibleError, changes=[((*ARRIVALS, "rate"), 100.0)])
    assert message.startswith(f"s.yaml: model chat/{LLAMA}: needs ")
    assert message.endswith("; allow more GPUs or replicas, take faster accelerators, or scale the traffic down")


def test_demand_beyond_the_largest_fleet_for_a_while_is_a_warning():
    ramp = {"law": "ramp", "rate": 1.0, "endRate": 20.0, "durationSeconds": 1200}
    (warning,) = read_scenario(written((ARRIVALS, ramp))).warnings
    assert warning == (
        f"model chat/{LLAMA}: demand is beyond the largest allowed fleet in 3 of 4 windows of 300 s; no contender can"
        " keep the objectives there"
    )


def test_models_that_share_gpus_are_judged_together():
    # 2 requests/s of 1024 + 256 tokens take 4 or 5 L4 each: either model fits into 8, both do not
    models = [
        {
            "model": LLAMA,
            "namespace": namespace,
            "arrivals": {"law": "poisson", "rate": 3.0, "durationSeconds": 600},
            "variants": [variant()],
        }
        for namespace in ("chat", "code")
    ]
    contenders = (("contenders",), [{"name": "w", "wva": {}}])
    assert read_scenario(written((("models",), models[:1]), contenders, (("gpus",), {"L4": 8}))).warnings == ()
    message = refusal(InfeasibleError, changes=[(("models",), models), contenders, (("gpus",), {"L4": 8})])
    assert message.startswith("s.yaml: gpus: all models together need at least 1")
    assert message.endswith("; allow more GPUs, take faster accelerators, or scale the traffic down")


def test_pinned_signals_are_not_judged_by_demand():
    changes = [((*ARRIVALS, "rate"), 100.0), ((*VARIANT, "signals"), {"kvUsage": 0.9})]
    assert read_scenario(written(*changes)).warnings == ()


def test_every_subset_of_contenders_can_be_run():
    names = ("wva", "hpa", "static")
    for size in range(1, 4):
        for only in itertools.combinations(names, size):
            assert tuple(one.name for one in read_scenario(written(), only=only).contenders) == only
