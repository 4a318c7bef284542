"""What is planned for, from loads whose next start-up is known by construction."""

import numpy as np
import pytest

from wva_analyzers.queueing_model.lead_time import LoadHistory, followed, planned, unseen, watched

STEP, LEAD = 15.0, 120.0


def follow(loads, scopes=1):
    history = unseen(scopes)
    for cycle, load in enumerate(loads):
        history = followed(history, cycle * STEP, np.full(scopes, float(load)), np.full(scopes, LEAD))
    return history


def plan(history, load, coverage=0.9):
    return planned(history, np.array([float(load)]), np.array([coverage]))[0]


def hours(count):
    return round(count * 3600 / STEP)


def test_a_load_that_stands_still_needs_hardly_more_than_itself():
    assert plan(follow([10.0] * hours(3)), 10.0) == pytest.approx(10.0, rel=0.06)


def test_a_slow_day_is_followed_down():
    loads = 10.0 + 6.0 * np.cos(2 * np.pi * np.arange(hours(12)) * STEP / 86400.0)  # falls for half a day
    assert plan(follow(loads), loads[-1]) < 1.25 * loads[-1]


def test_bursts_out_of_nothing_keep_capacity_for_the_next():
    # every ten minutes one minute of 20, between them 1: within most start-ups nothing happens, in one of four a burst
    loads = [20.0 if cycle % 40 < 4 else 1.0 for cycle in range(hours(3))]
    history = follow(loads)
    assert plan(history, 1.0, 0.9) > 10.0
    assert plan(history, 1.0, 0.5) < plan(history, 1.0, 0.9)


def test_a_share_of_coverage_of_noise_stays_within_the_plan():
    rng = np.random.default_rng(1)
    loads = 10.0 + rng.normal(0, 1.0, hours(4))
    history = follow(loads)
    window = round(LEAD / STEP)
    fresh = 10.0 + rng.normal(0, 1.0, 4000)
    kept = [
        fresh[start : start + window + 1].max() <= plan(history, fresh[start], 0.9)
        for start in range(0, len(fresh) - window, window)
    ]
    assert 0.84 <= np.mean(kept) <= 0.97


def test_nothing_is_planned_below_the_load_of_now():
    assert plan(follow([5.0] * hours(1)), 50.0) >= 50.0


def test_before_anything_was_seen_a_tenth_is_thought_possible():
    # quantile 0.9 of a normal error of a tenth: 1.28 x 0.1
    assert plan(unseen(1), 10.0) == pytest.approx(11.28, abs=0.1)


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
