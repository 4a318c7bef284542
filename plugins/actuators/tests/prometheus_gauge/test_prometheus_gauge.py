"""The actuator `prometheus-gauge`, seen through real scrapes over HTTP."""

from __future__ import annotations

import math
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from wsgiref.simple_server import WSGIRequestHandler, make_server

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from wva_actuators.prometheus_gauge.plugin import PrometheusGauge
from wva_core.domain import Fleet, Plan, Reason, Variant
from wva_core.domain.arrays import booleans, floats, integers
from wva_core.errors import ContractError
from wva_core.hooks import Fence, Runtime

NAN = math.nan
GAUGES = ("wva_desired_replicas", "wva_current_replicas", "wva_desired_ratio")
COUNTER = "wva_replica_scaling_total"


class StandingClock:
    def now(self):
        return 0.0


def plan(variants, *, reason=Reason.GROW):
    """A plan; `variants` are (current, desired) or (current, desired, accelerator) by name, or by namespace/name."""
    rows = {}
    for name, row in variants.items():
        namespace, _, short = name.rpartition("/")
        current, desired, accelerator = (*row, "H100")[:3]
        rows[Variant(namespace or "ns", short, "m", accelerator)] = (current, desired)
    fleet = Fleet(rows)
    current, desired = (np.array([rows[one][side] for one in fleet.variants], dtype=float) for side in (0, 1))
    return plan_of(fleet, current, desired, reason)


def plan_of(fleet, current, desired, reason=Reason.GROW):
    count = len(fleet)
    return Plan(
        time=0.0,
        fleet=fleet,
        current=floats(current),
        desired=floats(desired),
        wanted=floats(desired),
        low=floats(np.zeros(count)),
        high=floats(np.full(count, np.inf)),
        reason=integers(np.full(count, reason)),
        binding_row=integers(np.full(count, -1)),
        stalled=booleans(np.zeros(count, dtype=bool)),
    )


def started(registry, **parameters) -> PrometheusGauge:
    gauge = PrometheusGauge(PrometheusGauge.Parameters(**parameters))
    gauge.start(Runtime(StandingClock(), registry))
    return gauge


def act(gauge, *plans):
    for each in plans:
        gauge.act(each, Fence())


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *args):
        """Requests of a test are not worth a line."""


@contextmanager
def serving(registry) -> Iterator[str]:
    """The address under which a registry is scraped."""
    server = make_server("127.0.0.1", 0, make_wsgi_app(registry), handler_class=_QuietHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def get(address, accept="text/plain"):
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(urllib.request.Request(address, headers={"Accept": accept})) as answer:
        return answer.read().decode()


def parsed(text):
    """Samples by metric: values by the set of their labels."""
    samples: dict[str, dict[frozenset, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series = samples.setdefault(sample.name, {})
            labels = frozenset(sample.labels.items())
            assert labels not in series, f"{sample.name} has two samples for {dict(labels)}"
            series[labels] = sample.value
    return samples


class Scraped:
    """A gauge in service and a server that is scraped."""

    def __init__(self, address, gauge):
        self.address, self.gauge = address, gauge

    def samples(self):
        return parsed(get(self.address))

    def by_name(self, metric):
        """Values of a metric by variant name."""
        return {dict(labels)["variant_name"]: value for labels, value in self.samples().get(metric, {}).items()}

    def changes(self):
        """The counter by variant name, direction and reason."""
        return {
            tuple(dict(labels)[key] for key in ("variant_name", "direction", "reason")): value
            for labels, value in self.samples().get(COUNTER, {}).items()
        }


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def scraped(registry):
    with serving(registry) as address:
        yield Scraped(address, started(registry))


# ---- what is published


@pytest.mark.parametrize(  # the vectors of upstream WVA v0.9
    ("current", "desired", "ratio"), [(2, 5, 2.5), (0, 3, 3), (4, 4, 1), (6, 2, 1 / 3), (0, 0, 0)]
)
def test_ratio_is_desired_over_current_and_desired_where_there_is_none(scraped, current, desired, ratio):
    act(scraped.gauge, plan({"v": (current, desired)}))
    assert [scraped.by_name(metric) for metric in GAUGES] == [{"v": desired}, {"v": current}, {"v": ratio}]


def test_labels_are_name_namespace_and_accelerator(scraped):
    act(scraped.gauge, plan({"east/chat": (1, 2, "L40S"), "west/chat": (1, 3, "")}))
    expected = {
        frozenset({("variant_name", "chat"), ("namespace", "east"), ("accelerator_type", "L40S")}): 2.0,
        frozenset({("variant_name", "chat"), ("namespace", "west"), ("accelerator_type", "unresolved")}): 3.0,
    }
    samples = scraped.samples()
    assert samples["wva_desired_replicas"] == expected
    assert samples["wva_current_replicas"].keys() == samples["wva_desired_ratio"].keys() == expected.keys()


def test_nothing_is_published_before_the_first_plan(scraped):
    assert scraped.samples() == {}


def test_types_are_gauges_and_a_counter(scraped):
    act(scraped.gauge, plan({"v": (1, 2)}))
    types = {family.name: family.type for family in text_string_to_metric_families(get(scraped.address))}
    assert {types[name] for name in GAUGES} == {"gauge"}
    assert types["wva_replica_scaling"] == "counter"


def test_the_openmetrics_format_holds_the_same(scraped):
    act(scraped.gauge, plan({"v": (1, 2)}), plan({"v": (1, 3)}))
    text = get(scraped.address, accept="application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    values = {sample.name: sample.value for family in openmetrics_families(text) for sample in family.samples}
    assert values["wva_desired_replicas"] == 3
    assert values[COUNTER] == 1


def test_the_older_names_show_the_same_numbers(scraped):
    act(scraped.gauge, plan({"v": (2, 5), "w": (0, 1)}), plan({"v": (2, 4), "w": (0, 2)}))
    samples = scraped.samples()
    for name in (*GAUGES, COUNTER):
        assert samples[name.replace("wva_", "inferno_")] == samples[name]
        assert len(samples[name]) == 2


def test_the_older_names_can_be_switched_off(registry):
    with serving(registry) as address:
        scraped = Scraped(address, started(registry, inferno_names=False))
        act(scraped.gauge, plan({"v": (2, 5)}), plan({"v": (2, 4)}))
        assert set(scraped.samples()) == {*GAUGES, COUNTER}


def test_every_series_carries_the_controller_instance_if_there_is_one(registry):
    with serving(registry) as address:
        scraped = Scraped(address, started(registry, controller_instance="blue"))
        act(scraped.gauge, plan({"v": (2, 5)}), plan({"v": (2, 4)}))
        series = [dict(labels) for metric in scraped.samples().values() for labels in metric]
        assert len(series) == 8
        assert {labels["controller_instance"] for labels in series} == {"blue"}


def test_no_series_carries_an_empty_controller_instance(scraped):
    act(scraped.gauge, plan({"v": (2, 5)}), plan({"v": (2, 4)}))
    assert all("controller_instance" not in dict(labels) for metric in scraped.samples().values() for labels in metric)


# ---- what stays and what goes


def test_the_last_target_stays_while_the_next_is_not_known(scraped):
    act(scraped.gauge, plan({"v": (2, 5), "w": (1, 1)}), plan({"v": (3, NAN), "w": (1, 2)}))
    assert scraped.by_name("wva_desired_replicas") == {"v": 5, "w": 2}
    assert scraped.by_name("wva_current_replicas") == {"v": 3, "w": 1}
    assert scraped.by_name("wva_desired_ratio")["v"] == pytest.approx(5 / 3)


def test_the_last_target_stays_while_other_variants_come_and_go(scraped):
    act(scraped.gauge, plan({"v": (2, 5), "w": (1, 1)}), plan({"a": (1, 1), "v": (NAN, NAN)}))
    assert scraped.by_name("wva_desired_replicas") == {"a": 1, "v": 5}
    assert scraped.by_name("wva_current_replicas") == {"a": 1, "v": 2}


def test_a_target_that_never_was_known_is_not_published(scraped):
    act(scraped.gauge, plan({"v": (2, NAN)}))
    assert scraped.by_name("wva_desired_replicas") == {}
    assert scraped.by_name("wva_desired_ratio") == {}
    assert scraped.by_name("wva_current_replicas") == {"v": 2}


def test_replicas_that_were_never_known_leave_the_target_published(scraped):
    act(scraped.gauge, plan({"v": (NAN, 3)}))
    assert scraped.by_name("wva_desired_replicas") == {"v": 3}
    assert scraped.by_name("wva_current_replicas") == scraped.by_name("wva_desired_ratio") == {}


def test_series_of_a_removed_variant_are_gone_with_the_next_plan(scraped):
    act(scraped.gauge, plan({"v": (2, 5), "w": (1, 1)}), plan({"v": (2, 6), "w": (1, 2)}), plan({"w": (1, 2)}))
    named = {dict(labels)["variant_name"] for metric in scraped.samples().values() for labels in metric}
    assert named == {"w"}


def test_a_variant_that_comes_back_does_not_get_its_old_target_back(scraped):
    act(scraped.gauge, plan({"v": (2, 5)}), plan({}), plan({"v": (2, NAN)}))
    assert scraped.by_name("wva_desired_replicas") == {}


def test_another_accelerator_leaves_exactly_one_series(scraped):
    act(scraped.gauge, plan({"v": (2, 5, "")}), plan({"v": (2, NAN, "H100")}))
    samples = scraped.samples()
    for metric in GAUGES:
        (labels,) = samples[metric]
        assert dict(labels)["accelerator_type"] == "H100"
    assert scraped.by_name("wva_desired_replicas") == {"v": 5}


def test_standing_down_withdraws_every_series_until_the_next_plan(scraped):
    act(scraped.gauge, plan({"v": (2, 5)}))
    scraped.gauge.stand_down()
    assert scraped.samples() == {}
    act(scraped.gauge, plan({"v": (2, 4)}))
    assert scraped.by_name("wva_desired_replicas") == {"v": 4}


def test_a_plan_behind_a_lowered_fence_is_not_published(scraped):
    act(scraped.gauge, plan({"v": (2, 5)}))
    fence = Fence()
    fence.lower()
    assert scraped.gauge.act(plan({"v": (2, 9)}), fence).written == 0
    assert scraped.by_name("wva_desired_replicas") == {"v": 5}


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from("abcd"),
            st.tuples(st.sampled_from([0.0, 1.0, 2.0, 3.0, NAN]), st.sampled_from([0.0, 1.0, 2.0, 3.0, NAN])),
        ),
        max_size=8,
    )
)
def test_any_sequence_of_plans_publishes_what_a_plain_loop_remembers(plans):
    registry = CollectorRegistry()
    gauge = started(registry, inferno_names=False)
    published: dict[str, list[float]] = {}
    counts: dict[tuple[str, str], int] = {}
    for rows in plans:
        act(gauge, plan(rows))
        for name in set(published) - set(rows):
            del published[name]
            counts.pop((name, "scale-up"), None)
            counts.pop((name, "scale-down"), None)
        for name, row in rows.items():
            last = published.setdefault(name, [NAN, NAN])
            if last[1] < row[1] or last[1] > row[1]:
                key = (name, "scale-up" if row[1] > last[1] else "scale-down")
                counts[key] = counts.get(key, 0) + 1
            published[name] = [new if not math.isnan(new) else old for new, old in zip(row, last, strict=True)]
    samples = [sample for family in registry.collect() for sample in family.samples]

    def seen(metric):
        return {sample.labels["variant_name"]: sample.value for sample in samples if sample.name == metric}

    assert seen("wva_current_replicas") == {n: row[0] for n, row in published.items() if not math.isnan(row[0])}
    assert seen("wva_desired_replicas") == {n: row[1] for n, row in published.items() if not math.isnan(row[1])}
    assert {
        (sample.labels["variant_name"], sample.labels["direction"]): sample.value
        for sample in samples
        if sample.name == COUNTER
    } == counts


# ---- the counter


def test_the_counter_counts_changes_of_advice_and_not_cycles(scraped):
    waiting = [plan({"v": (2, 5)})] * 4  # the workload does not follow
    act(scraped.gauge, plan({"v": (2, 3)}), *waiting)
    assert scraped.changes() == {("v", "scale-up", "required"): 1}
    act(scraped.gauge, plan({"v": (5, 4)}, reason=Reason.SHRINK), plan({"v": (5, 5)}, reason=Reason.BOUND_MIN))
    assert scraped.changes() == {
        ("v", "scale-up", "required"): 1,
        ("v", "scale-down", "spare"): 1,
        ("v", "scale-up", "bound_min"): 1,
    }


def test_the_first_advice_is_no_change(scraped):
    act(scraped.gauge, plan({"v": (2, 5)}), plan({"v": (2, 5), "w": (1, 4)}))
    assert scraped.changes() == {}


def test_a_gap_in_the_advice_is_no_change(scraped):
    act(scraped.gauge, plan({"v": (2, 5)}), plan({"v": (2, NAN)}), plan({"v": (2, 5)}))
    assert scraped.changes() == {}


def test_counts_stay_while_other_variants_come_and_go(scraped):
    act(scraped.gauge, plan({"v": (2, 5)}), plan({"v": (2, 6)}), plan({"u": (1, 1), "v": (2, 6)}))
    assert scraped.changes() == {("v", "scale-up", "required"): 1}


# ---- service


def test_stopping_withdraws_everything_and_lets_another_start(registry):
    with serving(registry) as address:
        first = started(registry)
        act(first, plan({"v": (2, 5)}))
        first.stop()
        assert "replicas" not in get(address)
        first.start(Runtime(StandingClock(), registry))
        assert Scraped(address, first).samples() == {}
        first.stop()
        act(started(registry), plan({"v": (2, 4)}))
        assert Scraped(address, first).by_name("wva_desired_replicas") == {"v": 4}


def test_two_in_one_registry_are_refused_and_the_first_goes_on(registry):
    with serving(registry) as address:
        scraped = Scraped(address, started(registry))
        act(scraped.gauge, plan({"v": (2, 5)}))
        second = PrometheusGauge(PrometheusGauge.Parameters(inferno_names=False))
        with pytest.raises(ContractError) as refused:
            second.start(Runtime(StandingClock(), registry))
        second.stop()
        assert str(refused.value) == (
            "actuator prometheus-gauge: wva_desired_replicas: another collector of this process publishes the same"
            " names already; list this actuator once"
        )
        assert scraped.by_name("wva_desired_replicas") == {"v": 5}


def test_a_world_without_metrics_is_refused():
    with pytest.raises(ContractError, match="serves no metrics"):
        started(None)


# ---- scrapes and plans at the same time


class PausingRegistry(CollectorRegistry):
    """Stops between the first metric of a scrape and the second until it is let go."""

    def __init__(self):
        super().__init__()
        self.paused, self.go_on = threading.Event(), threading.Event()

    def collect(self):
        for position, metric in enumerate(super().collect()):
            if position == 1:
                self.paused.set()
                assert self.go_on.wait(30)
            yield metric


def test_a_plan_that_comes_in_the_middle_of_a_scrape_is_not_in_it():
    registry = PausingRegistry()
    before, after = plan({"v": (2, 5), "w": (1, 1)}), plan({"w": (4, 8)})
    with serving(registry) as address:
        gauge = started(registry)
        act(gauge, before)
        texts: list[str] = []
        scrape = threading.Thread(target=lambda: texts.append(get(address)))
        scrape.start()
        assert registry.paused.wait(30)
        act(gauge, after)
        registry.go_on.set()
        scrape.join(30)
        during, later = parsed(texts[0]), parsed(get(address))
    for samples, current, desired in ((during, [1, 2], [1, 5]), (later, [4], [8])):
        assert sorted(samples["wva_current_replicas"].values()) == current
        assert sorted(samples["wva_desired_replicas"].values()) == desired
        assert samples["inferno_desired_replicas"] == samples["wva_desired_replicas"]


def test_no_scrape_of_many_ever_mixes_two_plans(registry):
    even, odd = (
        plan({f"v{row}": (parity + 1, 10 * (parity + 1)) for row in range(parity, 60, 2)}) for parity in (0, 1)
    )
    # in one plan every current is 1 and every desired 10, in the other 2 and 20, over other variants
    whole = [
        {(name, metric, value) for metric, value in ((GAUGES[0], 10.0 * k), (GAUGES[1], k), (GAUGES[2], 10.0))}
        for k, name in ((1.0, "even"), (2.0, "odd"))
    ]
    with serving(registry) as address:
        gauge = started(registry)
        act(gauge, even)
        done = threading.Event()

        def publish():
            while not done.is_set():
                act(gauge, odd, even)

        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            for _ in range(25):
                samples = parsed(get(address))
                seen = {
                    ("odd" if int(dict(labels)["variant_name"][1:]) % 2 else "even", metric, value)
                    for metric in GAUGES
                    for labels, value in samples[metric].items()
                }
                assert seen in whole
                assert {len(samples[metric]) for metric in GAUGES} == {30}
        finally:
            done.set()
            publisher.join(30)
