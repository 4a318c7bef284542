"""The rule for objectives on hand-made requests, and cost from scheduling to release."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wva_core.errors import ParameterError
from wva_core.simulation.accounting import SloRule, fleet_cost
from wva_core.simulation.cluster import Cluster, Deployment, RequestLog, StartUp
from wva_core.simulation.profiles import ServerProfile

NEVER = math.nan


def log_of(*rows: tuple[float, int, float, float, bool]) -> RequestLog:
    """Rows of (arrival, output tokens, first token, finish, failed)."""
    arrival, output, first, finish, failed = (np.array(column) for column in zip(*rows, strict=True))
    none = np.zeros(len(rows), dtype=np.int64)
    return RequestLog(
        arrival.astype(float), none + 1, output, first.astype(float), finish.astype(float), failed, none, none, none,
        ("ns/a",), ("m",), 1000.0,
    )  # fmt: skip


RULE = SloRule(ttft_s=1.0, tpot_s=0.1)


@pytest.mark.parametrize(
    ("row", "attains"),
    [
        ((10.0, 101, 10.5, 20.0, False), True),  # TTFT 0.5, TPOT 0.095
        ((10.0, 101, 11.5, 20.0, False), False),  # TTFT 1.5
        ((10.0, 101, 10.5, 21.0, False), False),  # TPOT 0.105
        ((10.0, 16, 10.5, 12.1, False), False),  # 16 tokens: by the mean, 1.6/15 > 0.1
        ((10.0, 15, 10.5, 12.1, False), True),  # 15 tokens: by the last, due 10 + 1 + 1.4 = 12.4
        ((10.0, 15, 11.3, 12.3, False), True),  # a late first token does not matter if the last is in time
        ((10.0, 15, 10.5, 12.5, False), False),  # after 12.4
        ((10.0, 1, 10.9, 10.9, False), True),  # one token, due at 11
        ((10.0, 1, 11.1, 11.1, False), False),
        ((10.0, 101, NEVER, NEVER, True), False),  # failed
        ((10.0, 101, 10.5, 12.0, True), False),  # failed, whatever its times say
        ((10.0, 101, 10.5, NEVER, False), False),  # not finished
    ],
)
def test_rule_on_one_request(row, attains):
    assert RULE.attained(log_of(row)).tolist() == [attains]


def test_threshold_of_the_mean_is_a_setting():
    row = (10.0, 16, 10.5, 12.1, False)  # due by its last token at 12.5
    assert SloRule(1.0, 0.1, min_tokens_for_mean=17).attained(log_of(row)).tolist() == [True]


def test_score_counts_and_leaves_out_the_warm_up():
    log = log_of(
        (0.0, 101, 5.0, 9.0, False),  # in the warm-up
        (300.0, 101, 300.5, 305.5, False),
        (301.0, 101, 303.0, 308.0, False),
        (302.0, 101, NEVER, NEVER, True),
        (303.0, 101, 303.2, NEVER, False),
    )
    score = SloRule(1.0, 0.1, warmup_s=300.0).score(log)
    assert (score.requests, score.attained, score.failed, score.unfinished) == (4, 1, 1, 1)
    assert score.attainment == 0.25
    # TTFT 0.2, 0.5, 2.0, never: the median is the second, the tails never came.
    assert (score.ttft.p50, score.ttft.p95) == (0.5, math.inf)
    assert score.tpot.p99 == pytest.approx(0.05)


def test_score_of_nothing_is_not_known():
    score = SloRule(1.0, 0.1, warmup_s=1e6).score(log_of((0.0, 1, 0.5, 0.5, False)))
    assert score.requests == 0
    assert math.isnan(score.attainment)
    assert math.isnan(score.ttft.p50)


def test_percentiles_are_values_that_occurred():
    rows = [(0.0, 20, 0.01 * rank, 0.01 * rank + 0.019 * rank, False) for rank in range(1, 101)]
    score = RULE.score(log_of(*rows))
    assert (score.ttft.p50, score.ttft.p95, score.ttft.p99) == pytest.approx((0.50, 0.95, 0.99))
    assert score.tpot.p95 == pytest.approx(0.095)


def test_attainment_over_time_has_gaps_where_nobody_came():
    series = RULE.over_time(
        log_of((0.0, 1, 0.5, 0.5, False), (59.9, 1, 99.0, 99.0, False), (130.0, 1, 130.1, 130.1, False))
    )
    assert series.start_s.tolist() == [0.0, 60.0, 120.0]
    assert series.requests.tolist() == [2, 0, 1]
    np.testing.assert_array_equal(series.attainment, [0.5, math.nan, 1.0])


def test_rule_is_printed_in_one_sentence():
    assert SloRule(1.5, 0.05, warmup_s=300.0).text == (
        "A request attains its objectives if its first token comes within 1.5 s and, for answers of 16 tokens or more, "
        "the mean time per token after the first is at most 50 ms; a shorter answer of n tokens is judged by its last "
        "token alone, due 1.5 s + (n - 1) × 50 ms after arrival; a request that fails or never finishes misses; "
        "requests of the first 300 s are not scored."
    )


@pytest.mark.parametrize("changes", [{"ttft_s": 0.0}, {"tpot_s": math.nan}, {"warmup_s": -1.0}])
def test_impossible_rule_is_refused(changes):
    with pytest.raises(ParameterError):
        SloRule(**({"ttft_s": 1.0, "tpot_s": 0.1} | changes))


def test_cost_runs_from_scheduling_to_release():
    profile = ServerProfile(1.0, 0.0, 0.0, 0.0, max_batch=4, kv_capacity_tokens=100, accelerator="H100")
    slow = StartUp("constant", mean_s=600.0)
    cluster = Cluster(
        [
            Deployment("ns/a", "m", profile, gpus_per_replica=2, cost_usd_per_h=10.0, initial_replicas=1),
            Deployment("ns/b", "m", profile, gpus_per_replica=4, cost_usd_per_h=30.0, start_up=slow),
        ]
    )
    cluster.scale("ns/b", 2, now=1800.0)  # billed from here on, ready or not
    cluster.scale("ns/b", 1, now=2700.0)
    cluster.advance(3600.0)
    rows = {row.variant: row for row in fleet_cost(cluster)}
    assert (rows["ns/a"].replica_hours, rows["ns/a"].gpu_hours, rows["ns/a"].usd) == (1.0, 2.0, 10.0)
    assert (rows["ns/b"].replica_hours, rows["ns/b"].gpu_hours, rows["ns/b"].usd) == (0.75, 3.0, 22.5)
