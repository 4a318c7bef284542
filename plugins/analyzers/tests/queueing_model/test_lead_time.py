"""What is planned for, from loads whose next start-up is known by construction."""

import math

import numpy as np
import pytest

from wva_analyzers.queueing_model.lead_time import OVERLOADS, LoadHistory, followed, planned, unseen, watched

STEP, LEAD = 15.0, 120.0
STRICT = np.where(OVERLOADS > 1.0, 1.0, 0.0)[None]  # all are late above the plan, by a tenth of it and more
GENTLE = np.clip((OVERLOADS - 0.8) / 0.8, 0.0, 1.0)[None]


def follow(loads, scopes=1):
    history = unseen(scopes)
    for cycle, load in enumerate(loads):
        history = followed(history, cycle * STEP, np.full(scopes, float(load)), np.full(scopes, LEAD))
    return history


def plan(history, load, share=0.05, scatter=0.0, late=STRICT):
    return planned(history, np.array([float(load)]), np.array([scatter]), late, np.array([share]))[0]


def minutes(parts):
    """Averages of the last four, as rates over a minute are when asked for every 15 s."""
    return np.convolve(parts, np.full(4, 0.25), mode="valid")


def late_share(loads, planned_for, late=STRICT):
    """Of the requests that meet these loads, each load in proportion to itself."""
    return np.sum(loads * np.interp(loads / planned_for, OVERLOADS, late[0])) / np.sum(loads)


def hours(count):
    return round(count * 3600 / STEP)


def test_a_load_that_stands_still_needs_hardly_more_than_itself():
    assert plan(follow([10.0] * hours(3)), 10.0) == pytest.approx(10.0, rel=0.06)


def test_a_slow_day_is_followed_down():
    loads = 10.0 + 6.0 * np.cos(2 * np.pi * np.arange(hours(12)) * STEP / 86400.0)  # falls for half a day
    assert plan(follow(loads), loads[-1]) < 1.25 * loads[-1]


def test_bursts_out_of_nothing_keep_capacity_for_the_next():
    # every ten minutes one minute of 20, between them 1: 80 of 116 requests come in bursts
    loads = [20.0 if cycle % 40 < 4 else 1.0 for cycle in range(hours(3))]
    history = follow(loads)
    assert plan(history, 1.0, 0.05) > 17.0
    assert plan(history, 1.0, 0.8) < 8.0  # bursts may be late


def test_what_was_here_once_may_come_again_before_the_past_says_how_often():
    loads = [1.0] * 20 + [20.0] * 4 + [1.0] * 8  # eight minutes, one burst
    assert plan(follow(loads), 1.0, 0.01) > 15.0
    assert plan(follow(loads + [1.0] * hours(6)), 1.0, 0.01) < 3.0


@pytest.mark.parametrize("late", [STRICT, GENTLE])
@pytest.mark.parametrize("share", [0.02, 0.1])
def test_of_noise_no_more_is_late_than_may_be(share, late):
    rng = np.random.default_rng(1)
    held = round(2 * LEAD / STEP)  # a level for four minutes, so that a start-up later it is often another one
    history = follow(10.0 + np.repeat(rng.normal(0, 1.0, hours(8) // held), held))
    fresh = 10.0 + rng.normal(0, 1.0, 4000)
    assert 0.3 * share <= late_share(fresh, plan(history, 10.0, share, late=late), late) <= 1.5 * share


def test_nothing_is_planned_below_the_load_of_now():
    assert plan(follow([5.0] * hours(1)), 50.0) >= 50.0


def test_what_is_chance_in_the_measurement_is_not_planned_for():
    # 10 replicas that serve 0.05 requests/s each: a minute has 30 requests, and as many more or less as chance has it
    rng = np.random.default_rng(2)
    history = follow(minutes(rng.poisson(7.5, hours(4)) / 0.75))
    blind, knowing = plan(history, 10.0, 0.01), plan(history, 10.0, 0.01, scatter=1 / 3.0)
    assert blind > 10.0 * (1 + 2.33 / math.sqrt(30)) * 0.95  # quantile 0.99 of what is measured
    assert knowing < 0.85 * blind


def test_bursts_inside_a_minute_are_planned_for_though_its_average_does_not_show_them():
    even = follow([10.0] * hours(1))
    # 40 for a quarter of each minute, at a place that changes: averages stay near 10
    rng = np.random.default_rng(4)
    parts = np.zeros((hours(1) // 4, 4))
    parts[np.arange(len(parts)), rng.integers(4, size=len(parts))] = 40.0
    uneven = follow(minutes(parts.ravel()))
    calm = follow(np.repeat(minutes(parts.ravel())[::4], 4))  # as large errors, but within no minute
    assert plan(uneven, 10.0, 0.01) > 1.1 * plan(calm, 10.0, 0.01)
    assert plan(uneven, 10.0, 0.01) > 1.2 * plan(even, 10.0, 0.01)


def test_before_anything_was_seen_a_tenth_is_thought_possible():
    found = plan(unseen(1), 10.0, 0.05, late=GENTLE)
    loads = 10.0 + np.random.default_rng(3).normal(0, 1.0, 200_000)
    weights = np.ones_like(loads)
    assert np.average(np.interp(loads / found, OVERLOADS, GENTLE[0]), weights=weights) == pytest.approx(0.05, rel=0.1)


def test_a_rate_that_fills_its_window_is_no_burst():
    ramp = [0.5, 3.0, 5.5, 8.0]  # a minute's rate in the first minute
    assert plan(follow(ramp + [10.0] * 30), 10.0, 0.01) < 12.0


def test_what_is_not_known_plans_nothing_and_teaches_nothing():
    assert np.isnan(plan(unseen(1), np.nan))
    known, gaps = follow([3.0] * 40), follow([3.0] * 40 + [np.nan] * 3)
    assert gaps.sums[0, 0] == pytest.approx(known.sums[0, 0], rel=0.01)  # less, as it ages


def test_a_load_is_watched_after_a_lead():
    history = follow([3.0] * 9)
    assert watched(history, 8 * STEP, np.array([120.0])).tolist() == [True]
    assert watched(history, 8 * STEP, np.array([121.0])).tolist() == [False]
    assert watched(unseen(1), 0.0, np.array([0.0])).tolist() == [False]


def test_scopes_keep_their_own_past():
    history = unseen(2)
    for cycle in range(400):
        loads = np.array([10.0, 20.0 if cycle % 40 < 4 else 1.0])
        history = followed(history, cycle * STEP, loads, np.full(2, LEAD))
    swapped = LoadHistory.from_plain(history.plain()).take(np.array([1, -1, 0]))
    np.testing.assert_array_equal(swapped.sums[0], history.sums[1])
    np.testing.assert_array_equal(swapped.sums[2], history.sums[0])
    assert swapped.sums[1].sum() == 0
