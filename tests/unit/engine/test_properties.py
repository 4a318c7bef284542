"""Laws that hold for any fleet, with the built-in brains: limits, order, missing data, purity."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.unit.engine.parts import NAN, remembering
from wva_analyzers.saturation_v1.plugin import SaturationV1
from wva_core.domain import Assessment, Memory, ReplicaTable, SignalRequest
from wva_core.engine import Brain, decide, same_plan
from wva_core.hooks import API, hookimpl
from wva_core.hooks.catalog import NoParameters
from wva_core.hooks.chain import Entry
from wva_core.policy.layers import Layer, resolve
from wva_core.testing.builders import observe
from wva_optimizers.cost_aware.plugin import CostAware
from wva_optimizers.stepwise.plugin import Stepwise


class Tokens:
    """Demand by running requests, capacity by token space where it is known."""

    api = API
    signals = (SignalRequest("running"),)

    def __init__(self, parameters):
        pass

    @hookimpl
    def assess(self, observation):
        replicas, fleet = observation.replicas, observation.fleet
        rows = replicas.index.by_variant
        known = ~np.isnan(replicas["kv_capacity_tokens"])
        count = rows.count(known)
        total = rows.sum(np.where(known, replicas["kv_capacity_tokens"], 0.0))
        return Assessment.of(
            fleet,
            unit="tokens",
            capacity=np.where(count > 0, total / np.maximum(count, 1), np.nan),
            demand=replicas.index.by_scope.sum(replicas["running"] * 100.0),
        )


PLUGINS = {"saturation-v1": SaturationV1, "tokens": Tokens, "stepwise": Stepwise, "cost-aware": CostAware}


def parameters_of(_kind, name):
    return getattr(PLUGINS[name], "Parameters", NoParameters)


def brain(analyzers, optimizer):
    document = {"analyzers": [{"type": name} for name in analyzers], "optimizer": {"type": optimizer}}
    policy = resolve([Layer("test", document)], parameters_of)

    def entry(kind, name):
        return Entry.of(kind, PLUGINS[name], policy.parameters(kind, name), type_name=name)

    return Brain(policy, tuple(entry("analyzers", name) for name in analyzers), entry("optimizers", optimizer))


BRAINS = {
    "saturation-v1 + stepwise": brain(["saturation-v1"], "stepwise"),
    "tokens + cost-aware": brain(["tokens"], "cost-aware"),
    "both + cost-aware": brain(["saturation-v1", "tokens"], "cost-aware"),
    "both + stepwise": brain(["saturation-v1", "tokens"], "stepwise"),
}
every_brain = pytest.mark.parametrize("chain", BRAINS.values(), ids=BRAINS.keys())
TIME = 1000.0

maybe = st.one_of(st.just(NAN), st.floats(0.0, 1.0, width=32))
counts = st.integers(0, 12)


@st.composite
def variants(draw):
    """Rows of variants over a few models, types and roles."""
    rows = []
    for number in range(draw(st.integers(1, 6))):
        least = draw(st.sampled_from([0, 0, 1, 3]))
        current = draw(counts)
        rows.append(
            {
                "name": f"v{number}",
                "model": draw(st.sampled_from(["m", "n"])),
                "role": draw(st.sampled_from(["", "", "prefill", "decode"])),
                "accelerator": draw(st.sampled_from(["H100", "A100"])),
                "cost": draw(st.sampled_from([5.0, 10.0, 10.0, 15.0])),
                "gpus": draw(st.sampled_from([1.0, 2.0, 8.0])),
                "current": float(current),
                "pending": float(draw(st.integers(0, min(current, 2)))),
                "min_replicas": float(least),
                "max_replicas": draw(st.sampled_from([np.inf, float(least), 8.0])),
            }
        )
    return rows


@st.composite
def replicas_of(draw, rows):
    """A row for every ready replica; any cell may be unknown."""
    return [
        {
            "variant": row["name"],
            "pod": f"{row['name']}-{pod}",
            "kv_usage": draw(maybe),
            "waiting": draw(st.sampled_from([NAN, 0.0, 1.0, 4.0, 9.0])),
            "running": draw(st.sampled_from([NAN, 0.0, 3.0, 40.0])),
            "kv_capacity_tokens": draw(st.sampled_from([NAN, 0.0, 1000.0, 2000.0])),
        }
        for row in rows
        for pod in range(int(row["current"] - row["pending"]))
    ]


@st.composite
def worlds(draw):
    """Rows of variants and replicas, inventory, and a memory's targets by name."""
    rows = draw(variants())
    accelerators = draw(
        st.dictionaries(
            st.sampled_from(["H100", "A100"]),
            st.tuples(st.sampled_from([NAN, 0.0, 8.0, 30.0, np.inf]), st.sampled_from([NAN, 0.0, 8.0, 40.0])),
        )
    )
    targets = {row["name"]: draw(st.sampled_from([NAN, row["current"], 2.0, 7.0])) for row in rows}
    since = draw(st.sampled_from([TIME - 15.0, TIME - 900.0]))
    return rows, draw(replicas_of(rows)), accelerators, targets, since


def seen_of(rows, replicas, accelerators):
    return observe(rows, replicas, accelerators=accelerators, time=TIME)


def memory_of(fleet, targets, since):
    return remembering(fleet, target=[targets[variant.name] for variant in fleet.variants], since=since)


def least_and_most(table):
    least = np.maximum(table.min_replicas, 0.0)
    return least, np.maximum(table.max_replicas, least)


@every_brain
@settings(max_examples=25)
@given(world=worlds())
def test_every_plan_keeps_its_limits_and_has_a_row_for_every_variant(chain, world):
    rows, replicas, accelerators, targets, since = world
    seen = seen_of(rows, replicas, accelerators)
    decision = decide(seen, chain, memory_of(seen.fleet, targets, since))
    plan, table = decision.plan, decision.observation.variants
    assert decision.failures == {}
    assert len(plan.desired) == len(rows)
    least, most = least_and_most(table)
    assert np.all(plan.desired >= np.maximum(least, plan.low))
    assert np.all(plan.desired <= np.minimum(most, plan.high))
    assert np.array_equal(plan.desired, np.floor(plan.desired))
    # nothing grows beyond a shared row, or on one that is not known, but what a lower limit or a held target forces
    shared = decision.limits.rows
    forced = shared.usage(np.fmax(np.fmax(table.base, table.target), plan.low))
    allowed = np.where(np.isnan(shared.upper), -np.inf, shared.upper)
    assert np.all(shared.usage(plan.desired) <= np.maximum(forced, allowed) + 1e-9)


@every_brain
@settings(max_examples=25)
@given(world=worlds(), data=st.data())
def test_the_order_of_the_input_changes_nothing(chain, world, data):
    rows, replicas, accelerators, targets, since = world
    seen = seen_of(rows, replicas, accelerators)
    other = seen_of(data.draw(st.permutations(rows)), data.draw(st.permutations(replicas)), accelerators)
    memory = memory_of(seen.fleet, targets, since)
    assert same_plan(
        decide(seen, chain, memory).plan, decide(other, chain, memory_of(other.fleet, targets, since)).plan
    )


@every_brain
@settings(max_examples=25)
@given(world=worlds())
def test_names_decide_only_ties_so_renaming_in_order_renames_the_plan(chain, world):
    rows, replicas, accelerators, targets, since = world
    renamed = [{**row, "name": f"x{row['name']}"} for row in rows]
    moved = [{**row, "variant": f"x{row['variant']}"} for row in replicas]
    one, other = seen_of(rows, replicas, accelerators), seen_of(renamed, moved, accelerators)
    first = decide(one, chain, memory_of(one.fleet, targets, since)).plan
    second = decide(other, chain, memory_of(other.fleet, {f"x{k}": v for k, v in targets.items()}, since)).plan
    assert np.array_equal(first.desired, second.desired, equal_nan=True)
    assert np.array_equal(first.reason, second.reason)


def contents(seen):
    table = seen.variants
    arrays = [getattr(table, name) for name in ("cost", "current", "ready", "pending", "target", "base", "settling")]
    arrays += [*seen.replicas.columns.values(), seen.inventory.capacity, seen.inventory.used]
    return [array.tobytes() for array in arrays]


@every_brain
@settings(max_examples=25)
@given(world=worlds())
def test_inputs_are_never_changed_and_the_same_inputs_give_the_same_plan(chain, world):
    rows, replicas, accelerators, targets, since = world
    seen = seen_of(rows, replicas, accelerators)
    memory = memory_of(seen.fleet, targets, since)
    before, remembered = contents(seen), memory.to_bytes()
    first, second = decide(seen, chain, memory), decide(seen, chain, memory)
    assert contents(seen) == before
    assert memory.to_bytes() == remembered
    assert same_plan(first.plan, second.plan)
    assert first.memory.to_bytes() == second.memory.to_bytes()


def held_or_above(decision, seen, targets):
    """(V,) whether the plan gives no less than the last target, else than what is there, up to the maximum."""
    keep = np.array([targets[variant.name] for variant in seen.fleet.variants])
    keep = np.where(np.isnan(keep), seen.variants.current, keep)
    _, most = least_and_most(seen.variants)
    return decision.plan.desired >= np.minimum(keep, most)


@every_brain
@settings(max_examples=25)
@given(world=worlds())
def test_nothing_shrinks_on_missing_data(chain, world):
    rows, replicas, accelerators, targets, since = world
    blind = [{"variant": row["variant"], "pod": row["pod"]} for row in replicas]
    seen = seen_of(rows, blind, accelerators)
    decision = decide(seen, chain, memory_of(seen.fleet, targets, since))
    assert held_or_above(decision, seen, targets).all()


@every_brain
@settings(max_examples=25)
@given(world=worlds(), age=st.sampled_from([60.0, 299.0, 300.0, 5000.0]))
def test_nothing_shrinks_on_old_data(chain, world, age):
    rows, replicas, accelerators, targets, since = world
    seen = seen_of(rows, replicas, accelerators)
    columns = seen.replicas.columns
    ages = {name: np.full(len(seen.replicas), age) for name in columns}
    seen = replace(seen, replicas=ReplicaTable.of(seen.replicas.index, dict(columns.items()), ages))
    decision = decide(seen, chain, memory_of(seen.fleet, targets, since))
    assert held_or_above(decision, seen, targets).all()


@settings(max_examples=80)
@given(world=worlds())
def test_an_unknown_sample_never_lets_go_what_a_full_row_would_keep(world):
    """With every unknown cell at full load, whatever shrank without them shrinks still."""
    chain = BRAINS["saturation-v1 + stepwise"]
    rows, replicas, accelerators, targets, since = world
    most = {"kv_usage": 1.0, "waiting": 100.0}
    loaded = [{**row, **{name: most[name] for name in most if np.isnan(row[name])}} for row in replicas]
    assume(loaded != replicas)
    seen, full = seen_of(rows, replicas, accelerators), seen_of(rows, loaded, accelerators)
    one = decide(seen, chain, memory_of(seen.fleet, targets, since))
    other = decide(full, chain, memory_of(full.fleet, targets, since))
    shrinks, full_shrinks = one.ballot.shrink, other.ballot.shrink
    assert not np.any(shrinks & ~full_shrinks)


@every_brain
@settings(max_examples=25)
@given(worlds_in_turn=st.lists(worlds(), min_size=2, max_size=4))
def test_fleets_may_change_from_cycle_to_cycle(chain, worlds_in_turn):
    memory = Memory.empty()
    for cycle, (rows, replicas, accelerators, *_) in enumerate(worlds_in_turn):
        seen = replace(seen_of(rows, replicas, accelerators), time=TIME + 15.0 * cycle)
        decision = decide(seen, chain, memory)
        assert decision.failures == {}
        assert len(decision.plan.desired) == len(rows)
        memory = Memory.from_bytes(decision.memory.to_bytes())
    assert memory.cycle == len(worlds_in_turn)
