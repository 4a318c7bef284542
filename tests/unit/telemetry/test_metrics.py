"""The engine's own metrics, as a scrape shows them."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.telemetry.made_results import POLICY, failure, result
from wva_core.engine.loop import PolicyRefused
from wva_core.errors import ParameterError, PolicyError
from wva_core.hooks import ActuationReport
from wva_core.telemetry import names
from wva_core.telemetry.metrics import CycleMetrics


class Stopwatch:
    """A stopwatch that shows one reading after the other."""

    def __init__(self, *readings):
        self.readings = list(readings)

    def __call__(self):
        return self.readings.pop(0)


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def metrics(registry):
    return CycleMetrics(registry)


def series(registry, name):
    """Values by label values, in the order of the labels' names, as scraped; `_created` left out."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name == name
    }


def value(registry, name):
    return series(registry, name)[()]


def test_a_cycle_shows_what_it_covered(registry, metrics):
    variants = [{"name": "a", "model": "m"}, {"name": "b", "model": "m"}, {"name": "c", "model": "n"}]
    metrics(result(variants, stalled=("a", "c"), time=1_234.5))
    assert value(registry, names.MODELS_PROCESSED) == 2
    assert value(registry, names.VARIANTS_STALLED) == 2
    assert value(registry, names.LAST_CYCLE) == 1_234.5
    assert value(registry, names.CONFIG_INTERVAL) == 15
    metrics(result([{"name": "a"}], time=1_249.5))
    assert value(registry, names.MODELS_PROCESSED) == 1
    assert value(registry, names.VARIANTS_STALLED) == 0
    assert value(registry, names.LAST_CYCLE) == 1_249.5


def test_an_empty_fleet_is_no_models(registry, metrics):
    metrics(result(()))
    assert value(registry, names.MODELS_PROCESSED) == 0


def test_the_optimizer_in_service_is_one_and_those_before_it_are_zero(registry, metrics):
    metrics(result())
    assert series(registry, names.OPTIMIZER_ACTIVE) == {("cost-aware",): 1}
    metrics(result(policy={**POLICY, "interval": 30.0, "optimizer": {"type": "stepwise", "name": "mine"}}))
    assert series(registry, names.OPTIMIZER_ACTIVE) == {("cost-aware",): 0, ("stepwise",): 1}
    assert value(registry, names.CONFIG_INTERVAL) == 30
    metrics(result())
    assert series(registry, names.OPTIMIZER_ACTIVE) == {("cost-aware",): 1, ("stepwise",): 0}


def test_failures_are_counted_in_every_cycle_by_part_and_phrase(registry, metrics):
    late, raised = failure(), failure("raised ZeroDivisionError", cause=ZeroDivisionError())
    metrics(result(failures={"analyzer latency": late, "collector prometheus": raised}))
    metrics(result(failures={"analyzer latency": late, "subscriber RecordWriter": raised}))
    metrics(result())
    assert series(registry, names.ERRORS) == {
        ("analyzer", "late"): 2,
        ("collector", "raised"): 1,
        ("controller", "raised"): 1,
    }
    assert series(registry, names.PLUGIN_FAILURES) == {
        ("analyzer", "latency"): 2,
        ("collector", "prometheus"): 1,
        ("subscriber", "RecordWriter"): 1,
    }


def test_variants_that_could_not_be_written_are_errors_of_the_actuator(registry, metrics):
    metrics(result(reports={"actuator direct": ActuationReport(1, {"ns/a": "conflict", "ns/b": "conflict"})}))
    assert series(registry, names.ERRORS) == {("actuator", "write failed"): 2}


def test_refused_policies_are_counted(registry, metrics):
    assert value(registry, names.POLICY_REFUSED) == 0
    metrics(PolicyRefused(PolicyError("is wrong")))
    metrics(PolicyRefused(PolicyError("is wrong")))
    assert value(registry, names.POLICY_REFUSED) == 2
    assert series(registry, names.ERRORS) == {("controller", "policy refused"): 2}


def test_the_calls_of_each_plugin_are_timed(registry, metrics):
    metrics(result(seconds={"analyzer latency": 0.2, "optimizer cost-aware": 0.001}))
    metrics(result(seconds={"analyzer latency": 0.4}))
    assert series(registry, f"{names.PLUGIN_DURATION}_sum") == {
        ("analyzer", "latency"): pytest.approx(0.6),
        ("optimizer", "cost-aware"): 0.001,
    }
    assert series(registry, f"{names.PLUGIN_DURATION}_count")["analyzer", "latency"] == 2


def test_the_length_of_a_cycle_falls_into_the_buckets_of_the_contract(registry):
    run = CycleMetrics(registry, stopwatch=Stopwatch(10.0, 10.3)).timed(result)
    assert run().plan.status == "feasible"
    buckets = series(registry, f"{names.OPTIMIZATION_DURATION}_bucket")
    # contract of upstream WVA v0.9: .01 .05 .1 .25 .5 1 2.5 5 10; 0.3 s is above .25 and within .5
    assert buckets == {
        (bound, "success"): float(bound not in {"0.01", "0.05", "0.1", "0.25"})
        for bound in ("0.01", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf")
    }


def test_a_cycle_that_raises_or_holds_everything_counts_as_an_error(registry):
    metrics = CycleMetrics(registry, stopwatch=Stopwatch(0.0, 1.0, 5.0, 7.0))
    with pytest.raises(ZeroDivisionError):
        metrics.timed(lambda: 1 / 0)()
    metrics.timed(lambda: result(status="held"))()
    assert series(registry, f"{names.OPTIMIZATION_DURATION}_count") == {("error",): 2}
    assert series(registry, f"{names.OPTIMIZATION_DURATION}_sum") == {("error",): 3}


def test_every_series_carries_the_controller_instance_if_there_is_one(registry):
    metrics = CycleMetrics(registry, controller_instance="blue", stopwatch=Stopwatch(0.0, 1.0))
    metrics(PolicyRefused(PolicyError("is wrong")))
    metrics.timed(result)()
    metrics(
        result(
            failures={"analyzer latency": failure()},
            reports={"actuator direct": ActuationReport(0, {"ns/v": "conflict"})},
            seconds={"analyzer latency": 0.1},
        )
    )
    samples = [sample for family in registry.collect() for sample in family.samples]
    assert {sample.labels.get("controller_instance") for sample in samples} == {"blue"}
    families = {family.name for family in registry.collect()}
    assert families == {name.removesuffix("_total") for name in names.METRICS}


def test_a_second_set_in_one_registry_is_refused(registry, metrics):
    with pytest.raises(ParameterError) as refused:
        CycleMetrics(registry)
    assert str(refused.value) == (
        "metrics of the engine: wva_optimization_duration_seconds: is published in this registry already; make them"
        " once for each registry"
    )
