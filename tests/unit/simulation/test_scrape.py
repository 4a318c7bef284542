"""What a scrape shows: windows, rates, ages, pods that come and go, pinned signals."""

from __future__ import annotations

import numpy as np
import pytest

from wva_core.domain.signals import REPLICA_SIGNALS
from wva_core.errors import ParameterError
from wva_core.simulation.cluster import Cluster, Deployment, StartUp
from wva_core.simulation.profiles import ServerProfile
from wva_core.simulation.scrape import SIGNALS, Scraper
from wva_core.simulation.workload import Trace, poisson

# One token per second and sequence, prompts free.
CLOCK = ServerProfile(1.0, 0.0, 0.0, 0.0, max_batch=4, kv_capacity_tokens=1000)
RATIOS = ("input_tokens", "output_tokens", "ttft", "itl", "prefix_hit_rate")


def trace(*rows: tuple[float, int, int]) -> Trace:
    columns = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return Trace(columns[:, 0], columns[:, 1].astype(np.int64), columns[:, 2].astype(np.int64))


def scraper_of(*rows: tuple[float, int, int], replicas: int = 1, **settings: object) -> Scraper:
    values = {"profile": CLOCK, "initial_replicas": replicas, "start_up": StartUp("constant", mean_s=60.0)}
    deployment = Deployment("ns/a", "m", **(values | settings))
    return Scraper(Cluster([deployment], {"m": trace(*rows)}))


def test_signals_are_those_of_the_domain():
    assert set(SIGNALS) == set(REPLICA_SIGNALS)
    scraper = scraper_of()
    scraper.advance(60.0)
    assert set(scraper.snapshot().signals) == set(SIGNALS)


def test_no_traffic_is_not_known_for_ratios_and_zero_for_rates():
    scraper = scraper_of()
    scraper.advance(300.0)
    shown = scraper.snapshot()
    for name in RATIOS:
        assert np.isnan(shown.signals[name]).all(), name
    for name in ("arrival_rate", "request_rate", "output_token_rate", "input_token_rate", "kv_usage", "waiting"):
        assert shown.signals[name].tolist() == [0.0], name
    assert shown.arrival_rate.tolist() == [0.0]


def test_counter_with_one_sample_has_no_rate():
    scraper = scraper_of((0.1, 5, 3))
    scraper.advance(14.0)
    shown = scraper.snapshot()
    for name in ("arrival_rate", "request_rate", "output_token_rate", "ttft", "itl"):
        assert np.isnan(shown.signals[name]).all(), name
    assert shown.signals["kv_usage"].tolist() == [0.0]
    assert np.isnan(shown.arrival_rate).all()


def test_peaks_last_a_minute_and_gauges_show_the_newest_sample():
    # Six answers of 20 tokens arrive at 1; four run, two wait until 21. The scrape at 15 sees the queue.
    scraper = scraper_of(*[(1.0, 100, 20)] * 6)
    scraper.advance(70.0)
    shown = scraper.snapshot()
    assert shown.signals["waiting"].tolist() == [2.0]
    # At 15 four sequences hold 100 prompt tokens and 13 more each (first token at 2, then one a second).
    assert shown.signals["kv_usage"].tolist() == [pytest.approx(4 * 113 / 1000)]
    assert shown.signals["kv_now"].tolist() == [0.0]
    assert shown.signals["running"].tolist() == [0.0]
    scraper.advance(76.0)  # the scrape at 15 is out of the window
    assert scraper.snapshot().signals["waiting"].tolist() == [0.0]


def test_rates_and_means_of_regular_traffic():
    # One request every 5 s, prompt 8, answer 3: first token 1 s after arrival, then two gaps of 1 s.
    scraper = scraper_of(*[(5.0 * i + 1.0, 8, 3) for i in range(200)])
    scraper.advance(601.0)
    shown = scraper.snapshot()
    expected = {
        "arrival_rate": 0.2,
        "request_rate": 0.2,
        "output_token_rate": 0.6,
        "input_token_rate": 1.6,
        "input_tokens": 8.0,
        "output_tokens": 3.0,
        "ttft": 1.0,
        "itl": 1.0,
        "kv_capacity_tokens": 1000.0,
        "max_batch": 4.0,
    }
    for name, value in expected.items():
        assert shown.signals[name].tolist() == [pytest.approx(value)], name
    assert shown.arrival_rate.tolist() == [pytest.approx(0.2)]
    assert shown.ages["kv_usage"].tolist() == [1.0]
    assert shown.ages["max_batch"].tolist() == [0.0]


def test_rate_is_extrapolated_like_prometheus():
    # Completions at 16, 17, 31 and 32; query at 50 over (-10, 50]: samples at 0, 15, 30, 45 of 0, 0, 2, 4.
    # Increase 4 over 45 s. To the end 5 s < 1.1 gaps: all of it. To the start 10 s < 1.1 gaps, but the first value is
    # 0, so the counter cannot have grown before: 0. Factor 50/45, rate 4 x 50/45 / 60.
    scraper = scraper_of((13.0, 1, 3), (14.0, 1, 3), (28.0, 1, 3), (29.0, 1, 3))
    scraper.advance(50.0)
    assert scraper.snapshot().signals["request_rate"].tolist() == [pytest.approx(4 * 50 / 45 / 60)]


def test_new_pod_extrapolates_half_a_gap_to_the_start():
    # Ready at 62, so scraped at 75 and 90 only; the request completed between them, and one before 75.
    scraper = scraper_of((63.0, 1, 2), (80.0, 1, 2), replicas=0)
    scraper.cluster.scale("ns/a", 1, now=2.0)
    scraper.advance(100.0)
    # Increase 1 from 1 to 2 over 15 s; to the end 10 s: all; to the start 35 s: half a gap, 7.5; zero lies 15 s back.
    expected = 1 * (15 + 10 + 7.5) / 15 / 60
    assert scraper.snapshot().signals["request_rate"].tolist() == [pytest.approx(expected)]


def test_pod_that_was_not_scraped_yet_is_a_row_of_unknowns():
    scraper = scraper_of(replicas=1)
    scraper.cluster.scale("ns/a", 2, now=1.0)  # ready at 61
    scraper.advance(62.0)
    shown = scraper.snapshot()
    assert shown.pods == ["a-0", "a-1"]
    for name in SIGNALS:
        if name != "max_batch":
            assert np.isnan(shown.signals[name][1]), name
    assert np.isnan(shown.ages["kv_usage"]).tolist() == [False, True]


def test_pod_is_known_from_its_first_scrape_on():
    scraper = scraper_of(replicas=1)
    scraper.cluster.scale("ns/a", 2)  # ready at 60, scraped with the next at 75
    scraper.cluster.advance(61.0)
    scraper.advance(62.0)
    assert np.isnan(scraper.snapshot().signals["kv_usage"]).tolist() == [True, True]
    scraper.advance(76.0)
    assert scraper.snapshot().signals["kv_usage"].tolist() == [0.0, 0.0]
    assert scraper.snapshot().signals["kv_capacity_tokens"].tolist() == [1000.0, 1000.0]


def test_rate_after_an_outage_of_the_scrape_extrapolates_half_a_gap_to_the_end():
    # A completion every second from 2 on; samples at 0, 15 and 30; query at 59 over (-1, 59].
    # To the end 29 s: half a gap, 7.5. To the start 1 s, but the first value is 0: 0.
    scraper = scraper_of(*[(float(i), 1, 1) for i in range(1, 59)])
    scraper.advance(30.0)
    scraper.cluster.advance(59.0)
    shown = scraper.snapshot()
    # Arrivals at 1, 2, …, each done a second later: 29 by time 30.
    assert shown.signals["request_rate"].tolist() == [pytest.approx(29 * (30 + 7.5) / 30 / 60)]
    assert shown.ages["kv_usage"].tolist() == [29.0]


def test_draining_pod_no_longer_reports():
    scraper = scraper_of(*[(0.0, 1, 500)] * 2, replicas=2)
    scraper.advance(40.0)
    scraper.cluster.scale("ns/a", 1)
    assert scraper.snapshot().pods == ["a-0"]
    scraper.advance(100.0)
    assert scraper.snapshot().pods == ["a-0"]
    assert scraper.cluster.counts("ns/a").draining == 1


def test_column_of_a_gone_pod_leaves_nothing_to_its_successor():
    scraper = scraper_of(*[(0.5, 100, 20)] * 4, replicas=1)
    scraper.advance(30.0)
    scraper.cluster.scale("ns/a", 0)
    scraper.cluster.scale("ns/a", 1)  # ready at 90
    scraper.advance(106.0)  # two samples of its own, without traffic
    shown = scraper.snapshot()
    assert shown.pods == ["a-1"]
    assert shown.signals["kv_usage"].tolist() == [0.0]
    assert np.isnan(shown.signals["output_tokens"]).all()


def test_peaks_of_a_gone_pod_are_not_those_of_its_successor():
    # The first pod is busy until 20.5 and gone; the next is ready at 26, so its window reaches back to the first.
    start_up = StartUp("constant", mean_s=5.0)
    scraper = scraper_of(*[(0.5, 100, 20)] * 4, replicas=1, start_up=start_up)
    scraper.advance(21.0)
    scraper.cluster.scale("ns/a", 0)
    scraper.cluster.scale("ns/a", 1)
    scraper.advance(31.0)
    shown = scraper.snapshot()
    assert (shown.pods, shown.signals["kv_usage"].tolist()) == (["a-1"], [0.0])


def test_more_pods_than_columns():
    scraper = scraper_of(*[(0.0, i, 500) for i in range(1, 41)], replicas=40)
    scraper.advance(30.0)
    shown = scraper.snapshot()
    assert len(shown) == 40
    held = shown.signals["kv_now"] * 1000
    np.testing.assert_allclose(held, np.arange(1, 41) + 29)  # a prompt each, and a token a second after the first


def test_pinned_signals_replace_what_happened():
    scraper = scraper_of(pinned_signals={"kv_usage": 0.95, "waiting": 0.0}, replicas=3)
    scraper.advance(60.0)
    shown = scraper.snapshot()
    assert shown.signals["kv_usage"].tolist() == [0.95] * 3
    assert shown.signals["waiting"].tolist() == [0.0] * 3
    assert shown.signals["kv_now"].tolist() == [0.0] * 3


def test_unknown_pinned_signal_is_refused():
    with pytest.raises(ParameterError, match="is not a signal"):
        scraper_of(pinned_signals={"kv": 0.95})


def test_gateway_queue_is_seen_per_model():
    scraper = scraper_of((1.0, 100, 2), (2.0, 50, 2), replicas=0)
    scraper.advance(20.0)
    shown = scraper.snapshot()
    assert len(shown) == 0
    assert (shown.queue_size.tolist(), shown.queue_bytes.tolist()) == ([2.0], [600.0])
    assert shown.scope_age == 5.0


def test_before_the_first_scrape_nothing_is_known():
    scraper = scraper_of()
    shown = scraper.snapshot()
    assert np.isnan(shown.signals["kv_usage"]).all()
    assert np.isnan(shown.queue_size).all()
    assert np.isnan(shown.scope_age)


def test_requests_of_the_retention_window_count_pods_that_are_gone():
    scraper = scraper_of((1.0, 1, 3), (50.0, 1, 3), (100.0, 1, 3), replicas=1)
    scraper.advance(130.0)
    scraper.cluster.scale("ns/a", 0)
    scraper.advance(200.0)
    # Completed at 4, 53 and 103. The window of 160 s starts at 40, its first scrape is at 45; that of 150 s at 60.
    assert scraper.snapshot(retention_s=160.0).requests_retained.tolist() == [2.0]
    assert scraper.snapshot(retention_s=150.0).requests_retained.tolist() == [1.0]
    assert scraper.snapshot(retention_s=1e6).requests_retained.tolist() == [3.0]
    assert np.isnan(scraper.snapshot().requests_retained).all()


def test_series_shows_the_fleet_at_every_scrape():
    scraper = scraper_of(*[(1.0, 100, 20)] * 6)
    scraper.cluster.scale("ns/a", 2)
    scraper.advance(90.0)
    series = scraper.series()
    assert series.t.tolist() == [0.0, 15.0, 30.0, 45.0, 60.0, 75.0, 90.0]
    assert series.current[:, 0].tolist() == [2] * 7
    assert series.ready[:, 0].tolist() == [1] * 4 + [2] * 3
    assert series.waiting[:3, 0].tolist() == [0.0, 2.0, 0.0]
    assert series.completed[:, 0].tolist() == [0, 0, 4, 6, 6, 6, 6]


def test_snapshot_agrees_with_the_request_log():
    # Long-run check against what really happened, on a profile with all terms.
    profile = ServerProfile(0.01, 0.0005, 0.05, 0.0001, max_batch=16, kv_capacity_tokens=50_000)
    load = poisson(4, 6.0, 1200.0, (400, 60))
    scraper = Scraper(Cluster([Deployment("ns/a", "m", profile, initial_replicas=2)], {"m": load}))
    scraper.advance(1200.0)
    shown = scraper.snapshot()
    log = scraper.cluster.requests()
    window = (log.first_token_s > 1155.0) & (log.first_token_s <= 1200.0)  # the samples at 1155, 1170, 1185 and 1200
    for row in range(2):
        mine = window & (log.replica == row)
        assert shown.signals["ttft"][row] == pytest.approx((log.first_token_s - log.arrival_s)[mine].mean())
        assert shown.signals["request_rate"][row] == pytest.approx(
            ((log.finish_s > 1155.0) & (log.finish_s <= 1200.0) & (log.replica == row)).sum() / 45.0
        )
    assert shown.arrival_rate[0] == pytest.approx(((load.arrival_s > 1155.0) & (load.arrival_s <= 1200.0)).sum() / 45.0)


def test_newest_sums_over_the_ready_replicas_of_a_variant():
    # At 15 replica 0 holds prompts of 100 and 300, replica 1 one of 200, each with 13 tokens more since 2.
    scraper = scraper_of((1.0, 100, 40), (1.0, 200, 40), (1.0, 300, 40), replicas=2)
    assert np.isnan(scraper.newest("ns/a").running)
    scraper.advance(20.0)
    newest = scraper.newest("ns/a")
    assert (newest.waiting, newest.running) == (0.0, 3.0)
    assert newest.kv_usage == pytest.approx(639 / 1000)


def test_scrapes_missed_by_an_outage_stay_missing():
    scraper = scraper_of()
    scraper.advance(20.0)
    scraper.cluster.advance(50.0)
    scraper.advance(80.0)
    assert scraper.series().t.tolist() == [0.0, 15.0, 60.0, 75.0]


def test_interval_must_be_positive():
    with pytest.raises(ParameterError):
        Scraper(Cluster([]), 0.0)
