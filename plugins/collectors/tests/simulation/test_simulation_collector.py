"""The collector `simulation` on a small world: counts, inventory, signals and what is not known."""

from __future__ import annotations

import numpy as np
import pytest

from wva_collectors.simulation.plugin import SimulationCollector
from wva_core.domain import SignalRequest
from wva_core.errors import ContractError
from wva_core.hooks import Runtime
from wva_core.simulation.scenario import read_scenario
from wva_core.simulation.world import World

SCENARIO = """
name: two models
durationSeconds: 600
objectives: {ttftSeconds: 5, tpotSeconds: 0.15}
startUp: {law: constant, meanSeconds: 60}
gpus: {L4: 3, H100-80GB: 4}
models:
  - model: meta-llama/Llama-3.1-8B-Instruct
    namespace: west
    arrivals: {law: poisson, rate: 1.0, durationSeconds: 600, inputTokens: 512, outputTokens: 100}
    variants:
      - {name: small, profile: {accelerator: L4, kind: derived}, minReplicas: 1, maxReplicas: 6, initialReplicas: 2}
  - model: Qwen/Qwen3-32B
    namespace: east
    variants:
      - name: large
        profile: {accelerator: H100-80GB, tp: 2, engine: vllm, kind: measured, precision: bf16}
        cost: 9.5
        minReplicas: 0
contenders:
  - name: engine
    wva: {policy: {}}
"""
LARGE, SMALL = 0, 1  # rows of east/large and west/small, in the order of the fleet

WANTED = tuple(map(SignalRequest, ("kv_usage", "waiting", "ttft", "max_batch")))


@pytest.fixture
def world(tmp_path):
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    scenario = read_scenario(path)
    return World(scenario, scenario.contenders[0])


@pytest.fixture
def collector(world):
    made = SimulationCollector(SimulationCollector.Parameters())
    made.start(Runtime(world.clock, ports={"simulation": world}))
    return made


def run(world, until, *, scrapes=True):
    """Moves time on, with a scrape every 15 s."""
    for second in range(int(world.clock.time) + 15, until + 1, 15):
        world.cluster.advance(float(second))
        world.clock.time = float(second)
        if scrapes:
            world.scraper.sample()


def collect(collector, *wanted):
    fleet = collector.discover().fleet
    return collector.collect(fleet, wanted or WANTED)


def test_a_world_without_a_simulation_is_refused(world):
    with pytest.raises(ContractError, match="collector simulation: needs the port 'simulation'"):
        SimulationCollector(SimulationCollector.Parameters()).start(Runtime(world.clock))


def test_variants_are_those_of_the_scenario_with_their_limits_and_costs(world, collector):
    seen = collector.discover()
    assert seen.complete
    assert seen.fleet.keys == ("east/large", "west/small")
    assert [variant.accelerator for variant in seen.fleet.variants] == ["H100-80GB", "L4"]
    assert seen.variants.min_replicas.tolist() == [0, 1]
    assert seen.variants.max_replicas.tolist() == [np.inf, 6]
    assert seen.variants.cost.tolist() == [9.5, 0.8]  # as written; the price of an L4 in the table of accelerators
    assert seen.variants.gpus.tolist() == [2, 1]


def test_counts_are_those_of_this_moment(world, collector):
    before = collector.discover().variants
    assert [before.current[SMALL], before.ready[SMALL], before.pending[SMALL]] == [2, 2, 0]
    # three cards: one more replica starts for 60 s, two find no card
    world.scale("west/small", 5)
    after = collector.discover().variants
    assert [after.current[SMALL], after.ready[SMALL], after.pending[SMALL]] == [5, 2, 3]
    run(world, 60)
    later = collector.discover().variants
    assert [later.current[SMALL], later.ready[SMALL], later.pending[SMALL]] == [5, 3, 2]
    assert later.current[LARGE] == later.ready[LARGE] == 1
    assert before.current[SMALL] == 2, "a table that was handed out has changed"


def test_accelerators_in_use_follow_the_replicas(world, collector):
    def used():
        inventory = collector.discover().inventory
        return dict(zip(inventory.accelerators, inventory.used.tolist(), strict=True))

    inventory = collector.discover().inventory
    capacity = dict(zip(inventory.accelerators, inventory.capacity.tolist(), strict=True))
    assert capacity == {"L4": 3, "H100-80GB": 4}
    assert used() == {"L4": 2, "H100-80GB": 2}
    world.scale("west/small", 5)
    world.scale("east/large", 2)
    assert used() == {"L4": 3, "H100-80GB": 4}


def test_the_fleet_stays_the_same_object(world, collector):
    first = collector.discover().fleet
    world.scale("west/small", 4)
    run(world, 120)
    assert collector.discover().fleet is first is world.scenario.fleet


def test_there_is_a_row_for_every_ready_replica_and_none_for_others(world, collector):
    run(world, 30)
    world.scale("west/small", 3)
    assert collect(collector).replicas.index.variant_of_replica.tolist() == [LARGE, SMALL, SMALL]
    run(world, 90)  # the third has become ready at 90 s
    replicas = collect(collector).replicas
    assert replicas.index.variant_of_replica.tolist() == [LARGE, SMALL, SMALL, SMALL]
    assert replicas.index.pods == tuple(
        replica.pod for key in ("east/large", "west/small") for replica in world.cluster.ready_replicas(key)
    )


def test_rows_stay_the_same_object_while_the_same_pods_are_ready(world, collector):
    run(world, 30)
    first = collect(collector).replicas.index
    run(world, 60)
    assert collect(collector).replicas.index is first
    world.scale("west/small", 1)
    assert collect(collector).replicas.index is not first


def test_values_are_those_of_the_scrapes_with_their_windows_and_ages(world, collector):
    run(world, 120)
    world.cluster.advance(128.0)
    replicas = collect(collector).replicas
    seen = world.scraper.snapshot()
    row = {pod: number for number, pod in enumerate(seen.pods)}
    order = [row[pod] for pod in replicas.index.pods]
    for signal in ("kv_usage", "waiting", "ttft", "max_batch"):
        np.testing.assert_array_equal(replicas[signal], seen.signals[signal][order])
    assert replicas.age("kv_usage").tolist() == [8.0, 8.0, 8.0]
    assert np.all(replicas["kv_usage"][1:] > 0)
    # the largest sample of a minute is at least the newest
    newest = collect(collector, SignalRequest("kv_usage"), SignalRequest("kv_now")).replicas
    assert np.all(newest["kv_usage"] >= newest["kv_now"])


def test_signals_that_nobody_reads_are_not_collected(world, collector):
    run(world, 30)
    replicas = collect(collector, SignalRequest("waiting"), SignalRequest("arrival_rate", level="scope")).replicas
    assert set(replicas.columns) == {"waiting"}


def test_what_was_not_measured_is_not_known_and_never_zero(world, collector):
    nothing_scraped = collect(collector)
    for signal in ("kv_usage", "waiting", "ttft"):
        assert np.isnan(nothing_scraped.replicas[signal]).all()
        assert np.isnan(nothing_scraped.replicas.age(signal)).all()
    assert np.isnan(nothing_scraped.scopes["queue_size"]).all()
    run(world, 120)
    idle = collect(collector).replicas
    assert idle["kv_usage"][LARGE] == 0, "a measured zero"
    assert np.isnan(idle["ttft"][LARGE]), "no request, so no time to a first token"
    assert not np.isnan(idle["ttft"][1:]).any()


def test_a_replica_that_was_not_scraped_yet_has_a_row_without_values(world, collector):
    world.scale("west/small", 3)
    run(world, 45)
    run(world, 60, scrapes=False)  # it is ready at 60 s; the last scrape was at 45 s
    replicas = collect(collector).replicas
    assert np.isnan(replicas["kv_usage"]).tolist() == [False, False, False, True]


def test_the_gateway_is_shown_in_the_scope_of_its_model(world, collector):
    run(world, 120)
    fleet = collector.discover().fleet
    scopes = collect(collector).scopes
    assert [scope.namespace for scope in fleet.scopes] == ["east", "west"]
    assert scopes["arrival_rate"][0] == 0
    # one request a second on average; 60 arrivals are within 5 standard deviations of 7.7
    assert scopes["arrival_rate"][1] == pytest.approx(1.0, abs=5 * 7.7 / 60)
    assert scopes.age("arrival_rate").tolist() == [0.0, 0.0]


def test_requests_in_a_gateway_without_replicas_are_seen(world, collector):
    world.scale("west/small", 0)
    run(world, 60)
    scopes = collect(collector).scopes
    assert scopes["queue_size"][1] > 0
    assert scopes["queue_bytes"][1] == 512 * 4 * scopes["queue_size"][1]  # four bytes a token
    assert scopes["queue_size"][0] == 0


def test_the_longest_retention_that_is_asked_for_is_handed_on(world, collector):
    run(world, 300)
    assert np.isnan(collect(collector).scopes["requests_retained"]).all()
    asked = [SignalRequest("requests_retained", level="scope", retention_seconds=seconds) for seconds in (60.0, 240.0)]
    east, west = collect(collector, *asked).scopes["requests_retained"]

    def completed(seconds):
        seen = world.scraper.snapshot(seconds)
        return dict(zip(seen.models, seen.requests_retained, strict=True))["west/meta-llama/Llama-3.1-8B-Instruct"]

    assert east == 0
    assert west == completed(240.0) > completed(60.0)
