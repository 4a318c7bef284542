"""`wva optimize`: published vectors through the command line, and what it says of bad input."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import AliasChoices, BaseModel

from wva_core.cli.system_document import PowerRow, SystemDocument, read_system
from wva_core.cli.system_question import question_of
from wva_core.errors import InputError

ROOT = Path(__file__).parents[3]
B10 = ROOT / "examples/systems/b10.json"

G2 = {"alpha": 5.0, "beta": 0.2, "gamma": 0.015}


def system(*servers, accelerators=None, models=None, classes=None, counts=None, **optimizer):
    """A whole document; one accelerator `gpu-a` at 100, one model `llama` on it, one class `Premium`, unlimited."""
    return {
        "system": {
            "acceleratorData": {"accelerators": accelerators or [{"name": "gpu-a", "cost": 100}]},
            "modelData": {"models": models or [perf()]},
            "serviceClassData": {"serviceClasses": classes or [promise()]},
            "serverData": {"servers": list(servers)},
            "optimizerData": {"optimizer": {"unlimited": counts is None, **optimizer}},
            "capacityData": {"count": [{"type": name, "count": count} for name, count in (counts or {}).items()]},
        }
    }


def perf(acc="gpu-a", model="llama", **changes):
    row = {"name": model, "acc": acc, "accCount": 1, "maxBatchSize": 16, "atTokens": 200, "serviceParms": G2}
    return {**row, **changes}


def promise(ttft=2000, itl=500, tps=0, *, name="Premium", priority=1, model="llama"):
    target = {"model": model, "slo-ttft": ttft, "slo-itl": itl, "slo-tps": tps}
    return {"name": name, "priority": priority, "modelTargets": [target]}


def server(rpm=60, tokens=(100, 200), *, name="chat", has=None, least=1, **changes):
    """One server; `has` is (accelerator, replicas)."""
    accelerator, replicas = has or ("", 0)
    load = {"arrivalRate": rpm, "avgInTokens": tokens[0], "avgOutTokens": tokens[1]}
    return {
        "name": name,
        "class": "Premium",
        "model": "llama",
        "minNumReplicas": least,
        "currentAlloc": {"accelerator": accelerator, "numReplicas": replicas, "load": load},
        **changes,
    }


@pytest.fixture
def optimized(wva, written):
    """Runs `wva optimize --output json` on a document and returns what it printed."""

    def run(document, *options, exit_code=0):
        path = document if isinstance(document, Path) else written(document, "system.json")
        result = wva("optimize", path, "--output", "json", *options)
        assert result.exit_code == exit_code, result.output
        return json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    return run


def chat(told):
    return told["servers"]["chat"]


# ---- B.10: the published instance

PUBLISHED = {  # accelerator, replicas, batch, cost, ITL ms, TTFT ms
    "Premium-granite_13b": ("G2", 2, 38, 46, 29.40885, 62.261543),
    "Premium-granite_34b": ("G2", 7, 14, 322, 54.97808, 956.3935),
    "Premium-llama_13b": ("G2", 3, 38, 69, 41.97332, 94.38979),
    "Premium-llama_70b": ("G2", 43, 6, 3956, 67.38704, 930.1793),
    "Premium-mixtral_8_7b": ("G2", 27, 9, 1242, 76.21095, 915.8727),
    "Bronze-granite_13b": ("G2", 3, 38, 69, 36.419655, 425.16748),
    "Bronze-granite_34b": ("G2", 13, 14, 598, 56.039642, 1823.3079),
    "Bronze-llama_13b": ("G2", 5, 38, 115, 53.830456, 618.9834),
    "Bronze-llama_70b": ("4xA100", 48, 5, 7680, 41.275867, 1866.1561),
    "Bronze-mixtral_8_7b": ("G2", 49, 9, 2254, 81.40402, 1858.546),
    "Free-granite_13b": ("G2", 6, 38, 138, 36.419655, 425.16748),
    "Free-granite_34b": ("G2", 24, 14, 1104, 57.28135, 3826.373),
    "Free-llama_13b": ("G2", 10, 38, 230, 53.830456, 618.9834),
    "Free-llama_70b": ("4xA100", 83, 5, 13280, 43.84787, 3889.6626),
    "Free-mixtral_8_7b": ("4xA100", 54, 8, 8640, 51.631844, 3856.783),
}


def test_b10_the_published_solution_is_found(optimized):
    told = optimized(B10)
    got = {
        name: (row["accelerator"], row["replicas"], row["batch"], row["cost"]) for name, row in told["servers"].items()
    }
    assert got == {name: row[:4] for name, row in PUBLISHED.items()}
    assert (told["total_cost"], told["served"]) == (39743, 15)
    for name, (*_, itl, ttft) in PUBLISHED.items():  # published in single precision
        assert told["servers"][name]["itl_ms"] == pytest.approx(itl, rel=3e-7)
        assert told["servers"][name]["ttft_ms"] == pytest.approx(ttft, rel=1e-4)


def test_b10_a_fresh_server_is_valued_at_a_tenth_more_than_it_costs(optimized):
    for row in optimized(B10)["servers"].values():
        assert row["value"] == pytest.approx(1.1 * row["cost"], rel=1e-12)


def test_b10_without_limits_everybody_gets_the_cheapest(optimized):
    document = json.loads(B10.read_text())
    document["system"]["optimizerData"]["optimizer"]["unlimited"] = True
    told = optimized(document)
    assert told["total_cost"] == 33327
    assert all(row["limit"] is None for row in told["accelerators"].values())


def test_b10_cards_and_cost_add_up_by_type(optimized):
    told = optimized(B10)
    # G2: two units for granite_34b and mixtral, four for llama_70b; A100: four cards in each 4xA100
    cards = 2 + 2 * 7 + 3 + 4 * 43 + 2 * 27 + 3 + 2 * 13 + 5 + 2 * 49 + 6 + 2 * 24 + 10
    assert told["accelerators"]["G2"] == {"count": cards, "limit": 512, "cost": 10143}
    assert told["accelerators"]["A100"] == {"count": 4 * (48 + 83 + 54), "limit": 768, "cost": 29600}
    assert told["accelerators"]["L4"] == {"count": 0, "limit": 1024, "cost": 0}


def test_b10_the_exact_optimizer_proves_what_the_greedy_one_misses(optimized):
    told = optimized(B10, "--optimizer", "milp")
    assert (told["total_cost"], told["served"], told["status"]) == (35767, 15, "optimal")
    assert told["bound"] == pytest.approx(35767, rel=1e-9)
    assert told["gap"] == pytest.approx(0, abs=1e-9)


# ---- B.7: one accelerator, one server

B7 = {  # rpm, TTFT, ITL, TPS, server batch -> replicas, N, cost, ITL, W + prefill, rho, max rpm
    "30": ((30, 2000, 500, 0, 0), (1, 16, 100, 17.26208, 32.25124, 0.1088957, 69.2175)),
    "60": ((60, 2000, 500, 0, 0), (1, 16, 100, 33.79261, 224.7773, 0.4254672, 69.2175)),
    "120": ((120, 2000, 500, 0, 0), (2, 16, 200, 33.79261, 224.7773, 0.4254672, 69.2175)),
    "360": ((360, 2000, 500, 0, 0), (6, 16, 600, 33.79261, 224.7773, 0.4254672, 69.2175)),
    "batch": ((60, 2000, 500, 0, 12), (1, 12, 100, 32.67458, 725.7286, 0.5485943, 64.7398)),
    "tps": ((60, 2000, 500, 2, 0), (1, 16, 100, 11.59235, 26.57735, 0.001465655, 69.2175)),
}


@pytest.mark.parametrize("name", B7)
def test_b7_a_server_is_sized_as_published(optimized, name):
    (rpm, ttft, itl, tps, batch), (replicas, n, cost, itl_ms, until_token, rho, max_rpm) = B7[name]
    document = system(server(rpm, maxBatchSize=batch), classes=[promise(ttft, itl, tps)])
    row = chat(optimized(document, "--compat"))
    assert (row["replicas"], row["batch"], row["cost"]) == (replicas, n, cost)
    assert row["itl_ms"] == pytest.approx(itl_ms, rel=1e-5)
    assert row["ttft_ms"] - row["itl_ms"] == pytest.approx(until_token, rel=1e-5)  # the vector counts no decode step
    assert row["utilization"] == pytest.approx(rho, rel=1e-5)
    assert row["max_rate_per_min"] == pytest.approx(max_rpm, rel=1e-5)


def test_the_time_to_first_token_of_a_file_has_a_decode_step_more_than_that_of_sizing(optimized, wva):
    asked = "--model g2 --alpha 5ms --beta 0.2ms --gamma 0.015ms --max-batch 16 --input-tokens 100 --output-tokens 200"
    tight = f"{asked} --rate 30/min --slo-ttft 45ms --output json".split()
    row = chat(optimized(system(server(30), classes=[promise(45, 0)])))
    as_upstream, sized = (json.loads(wva("size", *tight, *more).stdout) for more in (["--compat"], []))
    assert row["max_rate_per_min"] == pytest.approx(as_upstream["max_rate_per_min"], rel=1e-9)
    assert row["max_rate_per_min"] < 0.9 * sized["max_rate_per_min"]


def test_b7_an_objective_that_cannot_be_kept_is_told_with_the_least_that_can(optimized):
    told = optimized(system(server(1200), classes=[promise(1, 0.1)]))
    row = chat(told)
    assert (row["replicas"], row["served"], told["served"]) == (0, False, 0)
    assert "slo-ttft 1 ms is below" in row["excluded"]["gpu-a"]
    assert "slo-itl 0.1 ms is below" in row["excluded"]["gpu-a"]


def test_the_least_that_can_be_kept_can_be_kept(optimized):
    why = chat(optimized(system(server(1), classes=[promise(1, 0)])))["excluded"]["gpu-a"]
    least = float(why.split("below ")[1].split(" ms")[0])
    assert chat(optimized(system(server(1e-3), classes=[promise(least * 1.0001, 0)])))["served"]


def test_a_throughput_objective_never_hides_the_load_that_is_measured(optimized):
    document = system(server(600), classes=[promise(2000, 500, 2)])
    assert chat(optimized(document))["replicas"] == 9  # 600 / 69.2175
    assert chat(optimized(document, "--compat"))["replicas"] == 1  # 2 / 200 requests a second
    more = system(server(6), classes=[promise(2000, 500, 400)])
    assert chat(optimized(more))["replicas"] == 2  # 400 / 200 requests a second = 120 a minute


# ---- A.8, G0: a published instance of the first latency model

G0 = {
    "granite_13b-Premium": (60, 40, 500, 2, 21.16437, 102.09766),
    "granite_13b-Bronze": (120, 80, 1000, 4, 21.16437, 102.09766),
    "granite_13b-Free": (240, 160, 2000, 7, 21.791157, 468.5332),
    "llama_13b-Premium": (60, 80, 500, 3, 23.317575, 12.806641),
    "llama_13b-Bronze": (120, 160, 1000, 5, 24.949406, 137.84766),
    "llama_13b-Free": (240, 320, 2000, 9, 26.131357, 513.2383),
}


def test_a8_the_first_latency_model_is_sized_as_published(optimized):
    models = [
        {"name": name, "acc": "G2", "accCount": 1, "maxBatchSize": 38, "atTokens": 512, "alpha": alpha, "beta": beta}
        for name, alpha, beta in (("granite_13b", 17.15, 0.34), ("llama_13b", 16.78, 0.73))
    ]
    classes, servers = [], []
    for name, (rpm, itl, ttw, *_) in G0.items():
        model, _, label = name.partition("-")
        classes.append({"name": label, "priority": 1, "model": model, "slo-itl": itl, "slo-ttw": ttw, "slo-tps": 0})
        load = {"arrivalRate": rpm, "avgLength": 1024, "arrivalCOV": 1, "serviceCOV": 1}
        servers.append({"name": name, "class": label, "model": model, "currentAlloc": {"load": load}})
    told = optimized(
        system(*servers, accelerators=[{"name": "G2", "cost": 23}], models=models, classes=classes),
    )
    for name, (*_, replicas, itl_ms, wait_ms) in G0.items():
        row = told["servers"][name]
        assert (row["replicas"], row["batch"], row["cost"]) == (replicas, 19, 23 * replicas)
        assert row["itl_ms"] == pytest.approx(itl_ms, rel=1e-6)
        assert row["wait_ms"] == pytest.approx(wait_ms, rel=4e-5)  # single precision in print
        assert row["ttft_ms"] is None


# ---- A.7: the logged runs, as a system


def logged(rpm, length, replicas):
    models = [{"name": "llama", "acc": "A100", "accCount": 1, "maxBatchSize": 4, "alpha": 20.58, "beta": 0.41}]
    classes = [{"name": "Premium", "priority": 1, "model": "llama", "slo-itl": 24, "slo-ttw": 500}]
    has = {"accelerator": "A100", "numReplicas": replicas, "load": {"arrivalRate": rpm, "avgLength": length}}
    one = {**server(least=1), "maxBatchSize": 4, "currentAlloc": has}
    return system(one, accelerators=[{"name": "A100", "cost": 40}], models=models, classes=classes)


def test_a7_the_first_logged_run(optimized):
    row = chat(optimized(logged(40, 178, 1)))
    assert (row["accelerator"], row["replicas"], row["cost"], row["value"]) == ("A100", 2, 80, 40)
    assert row["itl_ms"] == pytest.approx(21.49347, rel=1e-6)
    assert row["wait_ms"] == pytest.approx(69.7666, rel=1e-5)
    assert row["max_rate_per_min"] == pytest.approx(25.31145, rel=1e-6)


def test_a7_the_second_logged_run(optimized):
    row = chat(optimized(logged(1.33, 0, 2)))
    assert (row["replicas"], row["cost"], row["value"]) == (1, 40, -40)
    assert row["itl_ms"] == pytest.approx(20.99, rel=1e-12)
    assert (row["wait_ms"], row["utilization"]) == (0, 0)
    assert row["max_rate_per_min"] == pytest.approx(10801.08, rel=1e-6)


# ---- B.5: nobody asks

IDLE = {  # alpha, beta, row batch, server batch, units, unit cost, least -> cost, replicas, batch, ITL, requests/ms
    "one": ((5, 0.2, 16, 0, 1, 100, 1), (100, 1, 16, 5.2, 16 / 13.4)),
    "two": ((5, 2, 16, 0, 1, 100, 2), (200, 2, 16, 7, 16 / 44)),
    "batch": ((3, 1, 16, 8, 2, 50, 1), (100, 1, 8, 4, 8 / 15)),
}


@pytest.mark.parametrize("name", IDLE)
def test_b5_without_load_a_server_has_its_minimum(optimized, name):
    (alpha, beta, n, batch, units, price, least), (cost, replicas, used, itl, rate) = IDLE[name]
    row = chat(
        optimized(
            system(
                server(0, least=least, maxBatchSize=batch),
                accelerators=[{"name": "gpu-a", "cost": price}],
                models=[
                    perf(accCount=units, maxBatchSize=n, serviceParms={"alpha": alpha, "beta": beta, "gamma": 0.015})
                ],
            )
        )
    )
    assert (row["replicas"], row["cost"], row["batch"], row["served"]) == (replicas, cost, used, True)
    assert row["itl_ms"] == pytest.approx(itl, rel=1e-12)
    assert row["ttft_ms"] == pytest.approx(itl, rel=1e-12)
    assert row["max_rate_per_min"] == pytest.approx(rate * 60_000, rel=1e-9)


@pytest.mark.parametrize("counts", [None, {"gpu-a": 4}])
def test_b5_without_load_and_minimum_a_server_has_nothing(optimized, counts):
    row = chat(optimized(system(server(0, least=0, has=("gpu-a", 2)), counts=counts)))
    assert (row["accelerator"], row["replicas"], row["cost"], row["served"]) == ("", 0, 0, True)
    assert row["value"] == pytest.approx(-180)  # 200 are saved, a tenth of them counts as change


def test_b5_without_load_no_objective_stands_in_the_way(optimized):
    assert chat(optimized(system(server(0), classes=[promise(1, 0.1)])))["replicas"] == 1


# ---- B.6: what a change counts


@pytest.mark.parametrize(
    ("has", "rpm", "unit", "value"),
    [
        (("gpu-a", 2), 120, 50, 0),
        (("gpu-a", 2), 180, 50, 50),
        (("gpu-b", 2), 120, 60, 0.1 * (200 + 120) - 80),
        (("", 0), 120, 50, 110),
        (("gpu-a", 2), 60, 40, -40),
    ],
)
def test_b6_the_value_is_the_difference_and_a_tenth_of_both_sides_of_a_change(optimized, has, rpm, unit, value):
    document = system(
        server(rpm, has=has, least=0),
        accelerators=[{"name": "gpu-a", "cost": unit}, {"name": "gpu-b", "cost": 100}],
        models=[perf(), perf("gpu-b")],
    )
    row = chat(optimized(document))
    assert row["accelerator"] == "gpu-a"
    assert row["value"] == pytest.approx(value)


def test_b6_a_server_changes_only_if_it_saves_more_than_the_change_counts(optimized):
    # two replicas at 50 become two at 45: 10 saved, 19 counted for the change
    accelerators = [{"name": "gpu-a", "cost": 50}, {"name": "gpu-b", "cost": 45}]
    document = system(server(120, has=("gpu-a", 2)), accelerators=accelerators, models=[perf(), perf("gpu-b")])
    assert chat(optimized(document))["accelerator"] == "gpu-a"
    accelerators[1]["cost"] = 30
    row = chat(optimized(document))
    assert (row["accelerator"], row["current"]) == ("gpu-b", {"accelerator": "gpu-a", "replicas": 2, "cost": 100})


# ---- B.3: which accelerators are candidates

TWO = {
    "accelerators": [{"name": "gpu-a", "cost": 100}, {"name": "gpu-b", "cost": 1}],
    "models": [perf(), perf("gpu-b")],
}


@pytest.mark.parametrize(
    ("keeps", "has", "gets"),
    [(True, "gpu-a", "gpu-a"), (True, "", "gpu-b"), (False, "gpu-a", "gpu-b"), (True, "gpu-b", "gpu-b")],
)
def test_b3_only_the_current_accelerator_where_it_is_kept(optimized, keeps, has, gets):
    document = system(server(60, has=(has, 1 if has else 0), keepAccelerator=keeps), **TWO)
    assert chat(optimized(document))["accelerator"] == gets


def test_b3_keeping_an_accelerator_that_is_unknown_leaves_no_candidate(optimized):
    told = optimized(system(server(60, has=("gpu-c", 1), keepAccelerator=True), server(name="other"), **TWO))
    assert "keeps accelerator gpu-c" in chat(told)["reason"]
    assert told["servers"]["other"]["served"]
    assert told["served"] == 1


# ---- B.4: what cannot be asked about is told; the others go on


def test_a_minimum_above_the_cards_there_are_is_told_with_what_it_takes(optimized):
    # two units of a replica, two cards in each unit: five replicas take 20 of 8 cards
    models, cards = [perf(accCount=2)], [{"name": "gpu-a", "cost": 100, "multiplicity": 2, "type": "A"}]
    for optimizer in ("inferno", "milp"):
        document = system(server(least=5), models=models, accelerators=cards, counts={"A": 8})
        row = chat(optimized(document, "--optimizer", optimizer))
        assert not row["served"]
        assert row["reason"].endswith(
            "; 5 replicas on gpu-a would do, which take 20 cards of type A, and there are 8 for all servers"
        )


def test_of_several_accelerators_the_one_that_lacks_least_is_told(optimized):
    accelerators = [{"name": "gpu-a", "cost": 100}, {"name": "gpu-b", "cost": 50}]
    document = system(
        server(least=6), accelerators=accelerators, models=[perf(), perf("gpu-b")], counts={"gpu-a": 1, "gpu-b": 4}
    )
    reason = chat(optimized(document))["reason"]
    assert "6 replicas on gpu-b would do, which take 6 cards of type gpu-b, and there are 4 for all servers" in reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "lama"}, "model lama has no performance data; did you mean llama? known: llama"),
        ({"class": "Premum"}, "service class Premum is not listed; did you mean Premium? known: Premium"),
        ({"class": ""}, "service class Free is not listed; known: Premium"),
        ({"currentAlloc": {}}, "has no load; give currentAlloc.load"),
    ],
)
def test_b4_a_server_without_candidates_is_told_and_costs_nobody_else(optimized, changes, reason):
    told = optimized(system({**server(), **changes}, server(name="other")))
    assert chat(told)["reason"] == reason
    assert (chat(told)["replicas"], chat(told)["served"]) == (0, False)
    assert told["servers"]["other"]["replicas"] == 1


def test_b4_a_class_without_objectives_for_the_model_is_told(optimized):
    told = optimized(system(server(), classes=[promise(model="granite")]))
    assert chat(told)["reason"] == "service class Premium has no objectives for llama; known: granite"


def test_b4_an_accelerator_without_performance_data_is_told(optimized):
    told = optimized(system(server(), accelerators=TWO["accelerators"]))
    assert chat(told)["excluded"] == {"gpu-b": "model llama has no performance data on it"}


def test_b4_a_unit_count_that_is_not_positive_is_one(optimized):
    assert chat(optimized(system(server(), models=[perf(accCount=-3)])))["cost"] == 100


def test_b4_parameters_that_cannot_answer_for_an_objective_are_told(optimized):
    old = {"name": "llama", "acc": "gpu-a", "maxBatchSize": 4, "alpha": 20.58, "beta": 0.41}
    assert "give slo-ttw" in chat(optimized(system(server(), models=[old])))["excluded"]["gpu-a"]
    short = server()
    short["currentAlloc"]["load"] = {"arrivalRate": 60, "avgLength": 300}
    assert "need both lengths" in chat(optimized(system(short)))["excluded"]["gpu-a"]


# ---- B.8: limited capacity


def crowd(policy, count, **optimizer):
    """Three servers of 6, 5 and 3 replicas at 100, in two classes; `count` cards."""
    servers = [
        server(360, name="a", **{"class": "Gold"}),
        server(340, name="b", **{"class": "Silver"}),
        server(180, name="c", **{"class": "Silver"}),
    ]
    classes = [promise(name="Gold", priority=1), promise(name="Silver", priority=2)]
    return system(*servers, classes=classes, counts={"gpu-a": count}, saturationPolicy=policy, **optimizer)


@pytest.mark.parametrize(
    ("policy", "count", "delayed", "replicas"),
    [
        ("None", 14, False, (6, 5, 3)),
        ("None", 12, False, (6, 5, 0)),
        ("None", 4, False, (0, 0, 3)),
        ("PriorityExhaustive", 4, False, (4, 0, 0)),
        ("PriorityExhaustive", 4, True, (1, 0, 3)),
        ("PriorityExhaustive", 12, False, (6, 5, 1)),
        ("PriorityRoundRobin", 2, False, (2, 0, 0)),
        ("PriorityRoundRobin", 2, True, (2, 0, 0)),
        ("RoundRobin", 2, True, (1, 1, 0)),
        ("none", 12, False, (6, 5, 0)),
        ("roundrobin", 4, False, (0, 0, 3)),
    ],
)
def test_b8_what_does_not_fit_is_shared_as_the_policy_says(optimized, policy, count, delayed, replicas):
    told = optimized(crowd(policy, count, delayedBestEffort=delayed))
    assert tuple(told["servers"][name]["replicas"] for name in "abc") == replicas
    assert told["accelerators"]["gpu-a"]["count"] <= count


def test_e3_a_share_is_told_with_the_latency_it_really_has(optimized):
    told = optimized(crowd("PriorityExhaustive", 12))
    row = told["servers"]["c"]  # 180 requests a minute on one replica that carries 69
    assert (row["served"], row["cost"], row["itl_ms"], row["ttft_ms"]) == (False, 100, None, None)
    assert "gets a share" in row["reason"]
    assert told["served"] == 2


def test_cards_are_counted_by_type_with_their_multiplicity(optimized):
    accelerators = [{"name": "2xA", "type": "A", "multiplicity": 2, "cost": 100}]
    document = system(
        server(120),
        accelerators=accelerators,
        models=[perf("2xA", accCount=2)],
        counts={"A": 8},
        saturationPolicy="None",
    )
    told = optimized(document)  # two replicas of two units of two cards
    assert (chat(told)["cost"], told["accelerators"]["A"]) == (400, {"count": 8, "limit": 8, "cost": 400})
    document["system"]["capacityData"]["count"][0]["count"] = 7
    assert chat(optimized(document))["replicas"] == 0


@pytest.mark.parametrize("optimizer", ["inferno", "milp", "cost-aware"])
def test_every_optimizer_keeps_the_minimum_of_a_server(optimized, optimizer):
    servers = [server(60, least=3), server(0, least=2, name="idle"), server(600, least=1, name="busy")]
    told = optimized(system(*servers), "--optimizer", optimizer)
    assert [told["servers"][name]["replicas"] for name in ("chat", "idle", "busy")] == [3, 2, 9]
    assert told["served"] == 3


def test_a_server_that_may_have_several_accelerators_tells_each(optimized):
    # gpu-b is half the price, and there are two of them; 300 requests a minute need five replicas
    document = system(
        server(300),
        accelerators=[{"name": "gpu-a", "cost": 100}, {"name": "gpu-b", "cost": 50}],
        models=[perf(), perf("gpu-b")],
        counts={"gpu-a": 9, "gpu-b": 2},
        heterogeneous=True,
    )
    row = chat(optimized(document, "--optimizer", "milp"))
    assert (row["accelerator"], row["replicas"], row["cost"]) == ("gpu-a + gpu-b", 5, 400)
    assert [(part["accelerator"], part["replicas"]) for part in row["parts"]] == [("gpu-a", 3), ("gpu-b", 2)]
    assert row["ttft_ms"] == max(part["ttft_ms"] for part in row["parts"]) < 2000


def test_a_type_without_a_count_has_none(optimized, wva, written):
    document = system(server(), counts={"other": 5})
    assert chat(optimized(document))["replicas"] == 0
    assert "there is no count of accelerators of type gpu-a" in wva("optimize", written(document, "s.json")).stderr


def test_equal_servers_are_served_by_name_whatever_the_order_of_the_file(optimized):
    servers = [server(60, name=name) for name in ("s3", "s1", "s2")]
    for order in (servers, servers[::-1]):
        told = optimized(system(*order, counts={"gpu-a": 2}))
        assert {name: row["replicas"] for name, row in told["servers"].items()} == {"s1": 1, "s2": 1, "s3": 0}


# ---- B.11, B.1: documents


def test_b11_an_empty_system_is_answered(optimized):
    told = optimized({"system": {"optimizerData": {"optimizer": {}}}})
    assert (told["servers"], told["total_cost"], told["served"]) == ({}, 0, 0)


def test_b11_a_system_without_settings_of_the_optimizer_is_refused(wva, written):
    result = wva("optimize", written({"system": {}}, "system.json"))
    assert result.exit_code == 2
    assert "system.optimizerData: is missing; add it" in result.stderr


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("serverData", "servers", 0, "currentAlloc", "load", "arrivalRate"), -1, "is out of range (got -1)"),
        (("serverData", "servers", 0, "keepAcelerator"), True, "did you mean 'keepAccelerator'?"),
        (("acceleratorData", "accelerators", 0, "cost"), "40", "is not a number (got '40')"),
        (("modelData", "models", 0, "alpha"), 3.0, "does not describe exactly one latency model"),
        (("capacityData", "count"), [{"type": "A", "count": 1.5}], "is not a whole number"),
        (("serviceClassData", "serviceClasses", 0, "slo-itl"), 5, "promises something for no model"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(wva, written, path, value, says):
    document = system(server())
    at = document["system"]
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    result = wva("optimize", written(document, "system.json"))
    assert result.exit_code == 2
    assert "system.json: system." in result.stderr
    assert says in result.stderr


def test_b1_the_last_of_equal_names_counts_and_is_told(written):
    document = system(server(), server(120), accelerators=[{"name": "gpu-a", "cost": 1}, {"name": "gpu-a", "cost": 7}])
    path = written(document, "system.json")
    question = question_of(read_system(path))
    assert [pair.cost for pair in question.pairs] == [7]
    assert list(question.rate.values()) == [2.0]
    assert len([notice for notice in question.notices if "more than once" in notice]) == 2


@pytest.mark.parametrize(("given", "counts"), [(1, 1), (100, 100), (0, 100), (101, 100), (None, 100)])
def test_b1_a_priority_that_is_none_counts_as_the_lowest(written, given, counts):
    row = promise(priority=given)
    if given is None:
        del row["priority"]
    path = written(system(server(), classes=[row]), "system.json")
    assert question_of(read_system(path)).priorities == {"Premium": counts}


def test_b1_every_key_of_the_format_is_taken(written):
    document = copy.deepcopy(system(server(desiredAlloc={"accelerator": "gpu-a", "numReplicas": 1})))
    document["system"]["acceleratorData"]["accelerators"][0].update(
        type="A", multiplicity=1, memSize=80, memBW=2039, power={"idle": 1, "full": 4, "midPower": 3, "midUtil": 0.5}
    )
    document["system"]["optimizerData"]["optimizer"].update(heterogeneous=False, milpsolver=False, useCplex=False)
    document["system"]["modelData"]["models"][0]["perfParms"] = document["system"]["modelData"]["models"][0].pop(
        "serviceParms"
    )
    document["system"]["serverData"]["servers"][0]["currentAlloc"].update(
        maxBatch=16, cost=100, itlAverage=1, ttftAverage=2, waitAverage=3
    )
    path = written(document, "system.json")
    assert read_system(path).accelerator_data.accelerators[0].mem_bw == 2039


def test_b1_lengths_may_be_spelled_as_the_published_files_spell_them(written):
    document = system(server())
    document["system"]["serverData"]["servers"][0]["currentAlloc"]["load"] = {
        "arrivalRate": 60,
        "AvgInTokens": 100,
        "AvgOutTokens": 200,
    }
    path = written(document, "system.json")
    (row,) = read_system(path).server_data.servers
    assert (row.current_alloc.load.avg_in_tokens, row.current_alloc.load.avg_out_tokens) == (100, 200)


def test_every_key_of_the_format_is_explained():
    page = (ROOT / "docs/user-guide/optimize.md").read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    explained = {part for code in re.findall(r"`([^`]+)`", prose) for part in code.split(".")}
    plain = written_out(SystemDocument)
    assert plain <= explained, sorted(plain - explained)


def written_out(model):
    """Every key of a model and of the models inside it; the first of several spellings."""
    keys = set()
    for name, field in model.model_fields.items():
        choices = field.validation_alias
        keys.add(choices.choices[0] if isinstance(choices, AliasChoices) else field.alias or name)
        for inner in [field.annotation, *get_args(field.annotation)]:
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                keys |= written_out(inner)
    return keys


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist; correct the path"):
        read_system(tmp_path / "nothing.json")


def test_an_optimizer_that_is_not_installed_is_named(wva):
    result = wva("optimize", B10, "--optimizer", "infreno")
    assert result.exit_code == 2
    assert "did you mean 'inferno'?" in result.stderr


def test_the_table_tells_everything_on_80_columns(wva):
    result = wva("optimize", B10)
    assert result.exit_code == 0
    assert "15 of 15 servers served for 39743 USD/h" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


def test_the_table_tells_why_a_server_gets_nothing(wva, written):
    result = wva("optimize", written(system(server(1200), classes=[promise(1, 0.1)]), "system.json"))
    assert "0 of 1 servers served" in result.stdout
    assert "slo-ttft 1 ms is below" in " ".join(result.stdout.split())


# ---- B.2: power


@pytest.mark.parametrize(
    ("utilization", "watts"), [(0, 100), (0.25, 200), (0.5, 300), (0.75, 500), (1, 700), (1.5, 1100), (-0.1, 60)]
)
def test_b2_power_follows_two_straight_lines(utilization, watts):
    row = PowerRow(idle=100, full=700, midPower=300, midUtil=0.5)
    assert row.at(utilization) == pytest.approx(watts, rel=1e-12)
