"""From assessments to a ballot: thresholds, what is not known, votes, liveness and the anchor."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.engine.parts import NAN, analyzer
from wva_core.domain import Assessment, Memory, Verdict
from wva_core.engine.ballot import cast, is_live, required_capacity, scope_median, spare_capacity, vote_of
from wva_core.hooks.catalog import NoParameters
from wva_core.testing.builders import observe, settings

UP, DOWN = 0.85, 0.70


def column(*values):
    return np.array(values, dtype=float)


def asked(seen, *, scale_up=UP, scale_down=DOWN):
    return settings(NoParameters(), seen, scale_up=scale_up, scale_down=scale_down)


def voted(seen, *, demand, capacity, **thresholds):
    answer = Assessment.of(seen.fleet, unit="tokens", demand=column(*demand), capacity=column(*capacity))
    return vote_of("mine", answer, seen, asked(seen, **thresholds))


def step(seen, *, required=0.0, spare=None, verdict=None, capacity=None):
    scopes = len(seen.fleet.scopes)
    return Assessment.of(
        seen.fleet,
        unit="replicas",
        capacity=np.ones(len(seen.fleet)) if capacity is None else column(*capacity),
        required=column(*[required] * scopes),
        spare=None if spare is None else column(*[spare] * scopes),
        **({} if verdict is None else {"verdict": np.full(scopes, Verdict[verdict])}),
    )


def ballot_of(seen, answers, *, memory=None, optional=(), time=0.0, interval=15.0, **options):
    """The ballot and notices for answers by entry name; None is an analyzer that failed."""
    seen = replace(seen, time=time)
    entries = [analyzer(lambda *_: None, name=name, required=name not in optional) for name in answers]
    given = {name: answer for name, answer in answers.items() if answer is not None}
    wanted = {name: asked(seen) for name in answers}
    remembered = memory or Memory.empty(seen.fleet)
    return cast(entries, given, seen, wanted, remembered, interval=interval, **options)


@pytest.fixture
def one():
    """One scope with one variant of two replicas."""
    return observe([{"name": "a", "current": 2}])


# ---------------------------------------------------------------------------------------------------------------------
# Thresholds; expected values are those of upstream WVA v0.9 at .85 and .70

THRESHOLDS = {
    "D6": (10000, 10000, 10000, 1764.7059, 0),
    "D7": (5000, 10000, 10000, 0, 2857.1429),
    "D8": (8000, 10000, 10000, 0, 0),
    "D9-up": (8500, 10000, 10000, 0, 0),
    "D9-down": (7000, 10000, 10000, 0, 0),
    "D10": (8000, 7000, 10000, 0, 0),
    "D11": (10000, 10000, 0, 11764.7059, 0),
    "D13-decode": (9500, 10000, 10000, 1176.4706, 0),
    "D13-prefill": (8000, 10000, 11000, 0, 0),
}


@pytest.mark.parametrize(
    ("demand", "supply", "anticipated", "required", "spare"), THRESHOLDS.values(), ids=THRESHOLDS.keys()
)
def test_thresholds_leave_a_band_between_growing_and_shrinking(demand, supply, anticipated, required, spare):
    # tolerance: the vectors are printed with four decimals; D9 is 10000 up to the rounding of a division
    assert required_capacity(column(demand), column(anticipated), column(UP))[0] == pytest.approx(required, abs=1e-4)
    assert spare_capacity(column(demand), column(supply), column(DOWN))[0] == pytest.approx(spare, abs=1e-4)


@pytest.mark.parametrize("threshold", [0.0, -1.0], ids=["D12-zero", "D12-negative"])
def test_a_threshold_that_is_not_positive_is_not_judged(threshold, one):
    assert required_capacity(column(10000), column(0), column(threshold))[0] == 0.0
    assert spare_capacity(column(0), column(10000), column(threshold))[0] == 0.0
    # D12: a need and a spare that the analyzer states itself are left as they are
    vote = vote_of("mine", step(one, required=42, spare=17), one, asked(one, scale_up=threshold, scale_down=threshold))
    assert (vote.required[0], vote.spare[0]) == (42.0, 17.0)


def test_growth_counts_replicas_that_are_asked_for_and_shrinking_only_those_that_serve():
    # 2 ready, 1 pending, target 4: growth sees 4 x 1000, shrinking 2 x 1000
    seen = observe([{"name": "a", "current": 3, "pending": 1}])
    seen = seen.with_variants(seen.variants.with_columns(base=[4.0]))
    vote = voted(seen, demand=[5000], capacity=[1000])
    assert vote.required[0] == pytest.approx(5000 / 0.85 - 4000)
    assert vote.supply[0] == 2000.0


def test_demand_that_returns_takes_back_a_shrink_in_flight():
    # 4 serve, target 2, demand for 4: the plan starts from 2, so 2 replicas are required at once
    seen = observe([{"name": "a", "current": 4}])
    seen = seen.with_variants(seen.variants.with_columns(base=[2.0]))
    vote = voted(seen, demand=[0.85 * 4000], capacity=[1000])
    assert vote.required[0] == pytest.approx(2000)


def test_growth_counts_what_is_there_and_pending_where_the_start_is_not_known():
    seen = observe([{"name": "a", "current": 3, "pending": 1}])
    seen = seen.with_variants(seen.variants.with_columns(base=[np.nan]))
    vote = voted(seen, demand=[0.85 * 5000], capacity=[1000])
    assert vote.required[0] == pytest.approx(2000)


def test_replicas_that_will_go_are_no_supply_to_shrink_on():
    # 5 ready, target 2: only two will stay
    seen = observe([{"name": "a", "current": 5}])
    seen = seen.with_variants(seen.variants.with_columns(base=[2.0]))
    vote = voted(seen, demand=[700], capacity=[1000])
    assert vote.spare[0] == pytest.approx(2000 - 1000)
    assert vote.required[0] == 0.0


# ---------------------------------------------------------------------------------------------------------------------
# What is not known

THREE = [{"name": "a", "current": 1}, {"name": "b", "current": 1}, {"name": "c", "current": 2}]


def test_a_replica_of_unknown_capacity_counts_at_the_median_for_growth_and_as_nothing_for_shrinking():
    # known 1000 and 3000, median 2000; c has two replicas
    seen = observe(THREE)
    vote = voted(seen, demand=[6800], capacity=[1000, 3000, NAN])
    assert vote.required[0] == pytest.approx(max(0.0, 6800 / 0.85 - (1000 + 3000 + 2 * 2000)), abs=1e-9)
    assert vote.supply[0] == 4000.0
    assert voted(seen, demand=[8500], capacity=[1000, 3000, NAN]).required[0] == pytest.approx(2000.0)


def test_where_no_capacity_is_known_nothing_counts_for_growth():
    seen = observe(THREE)
    vote = voted(seen, demand=[850], capacity=[NAN, NAN, NAN])
    assert vote.required[0] == pytest.approx(1000.0)
    assert not vote.informative[0]


def test_the_median_is_that_of_each_scope():
    seen = observe(
        [{"name": name, "model": model} for name, model in zip("abcde", ["m", "m", "m", "n", "o"], strict=True)]
    )
    assert scope_median(seen, column(1, 2, 9, 4, NAN)).tolist()[:2] == [2.0, 4.0]
    assert np.isnan(scope_median(seen, column(1, 2, 9, 4, NAN))[2])
    assert scope_median(seen, column(1, 3, NAN, NAN, 7)).tolist()[0] == 2.0


def test_an_unknown_demand_requires_nothing_spares_nothing_and_freezes(one):
    answer = Assessment.of(
        one.fleet, unit="tokens", demand=column(NAN), capacity=column(1000), verdict=np.array([Verdict.JUDGED])
    )
    ballot, _ = ballot_of(one, {"mine": answer})
    assert (ballot.votes[0].required[0], ballot.votes[0].spare[0]) == (0.0, 0.0)
    assert (bool(ballot.grow[0]), bool(ballot.shrink[0]), bool(ballot.frozen[0])) == (False, False, True)


def test_a_step_whose_need_is_not_known_spares_nothing(one):
    vote = vote_of("mine", step(one, required=NAN, spare=1), one, asked(one))
    assert vote.spare[0] == 0.0


def test_a_freeze_of_one_does_not_stop_the_growth_another_requires(one):
    ballot, _ = ballot_of(one, {"first": step(one, required=NAN, spare=NAN), "second": step(one, required=1)})
    assert (bool(ballot.grow[0]), bool(ballot.frozen[0])) == (True, False)


# ---------------------------------------------------------------------------------------------------------------------
# Votes


def test_shrinking_needs_every_analyzer_to_agree(one):
    yes, no = step(one, spare=1), step(one, spare=0)
    assert ballot_of(one, {"first": yes, "second": yes})[0].shrink[0]
    assert not ballot_of(one, {"first": yes, "second": no})[0].shrink[0]


def test_growth_needs_only_one_and_forbids_shrinking(one):
    ballot, _ = ballot_of(one, {"first": step(one, spare=1), "second": step(one, required=2)})
    assert (bool(ballot.grow[0]), bool(ballot.shrink[0])) == (True, False)


def test_who_abstains_stands_in_nobodys_way(one):
    ballot, _ = ballot_of(one, {"first": step(one, spare=1), "second": step(one, verdict="ABSTAIN")})
    assert ballot.shrink[0]


def test_nobody_left_to_agree_is_no_agreement(one):
    ballot, _ = ballot_of(one, {"first": step(one, spare=1, verdict="ABSTAIN")})
    assert (bool(ballot.shrink[0]), ballot.votes[0].spare[0]) == (False, 0.0)


def test_no_shrink_lets_grow_and_keeps_the_rest(one):
    ballot, _ = ballot_of(one, {"first": step(one, spare=1), "second": step(one, spare=1, verdict="NO_SHRINK")})
    assert (bool(ballot.shrink[0]), bool(ballot.frozen[0])) == (False, False)
    ballot, _ = ballot_of(one, {"first": step(one, required=1, verdict="NO_SHRINK")})
    assert ballot.grow[0]


def test_a_freeze_requires_nothing_even_where_a_need_is_stated(one):
    ballot, _ = ballot_of(one, {"first": step(one, required=1, verdict="FREEZE")})
    assert (bool(ballot.grow[0]), bool(ballot.frozen[0])) == (False, True)


def test_an_analyzer_that_failed_keeps_its_veto_and_freezes_nothing(one):
    ballot, _ = ballot_of(one, {"first": step(one, spare=1), "second": None})
    assert (bool(ballot.shrink[0]), bool(ballot.frozen[0])) == (False, False)
    assert ballot_of(one, {"first": step(one, required=1), "second": None})[0].grow[0]


def test_where_policy_does_not_ask_an_analyzer_it_has_no_say():
    seen = observe([{"name": "a", "model": "m"}, {"name": "b", "model": "n"}])
    asks = {"second": np.array([True, False])}
    for answer in (step(seen, required=1), step(seen, verdict="FREEZE"), None):
        ballot, notices = ballot_of(seen, {"first": step(seen, spare=1), "second": answer}, enabled=asks)
        assert (bool(ballot.grow[1]), bool(ballot.shrink[1]), bool(ballot.frozen[1])) == (False, True, False)
        assert not ballot.shrink[0]
        assert notices == ()
    assert ballot_of(seen, {"second": step(seen, spare=1)}, enabled=asks)[0].anchor.tolist() == [0, -1]


def test_the_most_important_of_what_analyzers_say_is_the_priority_of_a_scope():
    seen = observe([{"name": name, "model": name} for name in "abc"])
    first = replace(step(seen), priority=column(5.0, NAN, NAN))
    second = replace(step(seen), priority=column(7.0, 2.0, NAN))
    ballot, _ = ballot_of(seen, {"first": first, "second": second, "third": step(seen)})
    np.testing.assert_array_equal(ballot.priority, [5.0, 2.0, NAN])


def test_who_is_not_asked_somewhere_says_no_priority_there():
    seen = observe([{"name": name, "model": name} for name in "ab"])
    answer = replace(step(seen), priority=column(5.0, 5.0))
    ballot, _ = ballot_of(seen, {"first": answer}, enabled={"first": np.array([True, False])})
    np.testing.assert_array_equal(ballot.priority, [5.0, NAN])


def test_nobody_can_write_on_a_ballot(one):
    ballot, _ = ballot_of(one, {"first": step(one, required=1), "second": None})
    parts = [ballot.grow, ballot.shrink, ballot.frozen, ballot.anchor]
    for vote in ballot.votes:
        parts += [vote.required, vote.spare, vote.capacity, vote.supply, vote.gates_shrink, vote.informative]
    assert not any(part.flags.writeable for part in parts)


# ---------------------------------------------------------------------------------------------------------------------
# Liveness; interval 30 s as in the vectors of upstream WVA v0.9


@pytest.mark.parametrize(("age", "live"), [(89, True), (90, True), (95, False)], ids=["D15-89s", "boundary", "D15-95s"])
def test_an_informative_answer_lives_three_intervals(age, live):
    assert is_live(column(100.0), 100.0 + age, 30.0)[0] == live


def test_what_never_was_informative_is_not_live():
    assert not is_live(column(NAN), 0.0, 30.0)[0]


@pytest.mark.parametrize("interval", [0.0, -1.0])
def test_an_interval_that_is_not_positive_counts_as_thirty_seconds(interval):
    assert is_live(column(100.0), 190.0, interval)[0]
    assert not is_live(column(100.0), 191.0, interval)[0]


def no_data(seen):
    """An answer without a known capacity: nothing to go on."""
    return step(seen, verdict="FREEZE", capacity=[NAN] * len(seen.fleet))


def vetoes(seen, memory, time, **options):
    """Whether `slow`, which has nothing to go on, still stops what `first` would give up; and freezes it."""
    answers = {"first": step(seen, spare=1), "slow": no_data(seen)}
    ballot, notices = ballot_of(seen, answers, memory=memory, time=time, interval=30.0, **options)
    return [bool(vote) for vote in ballot.votes[1].gates_shrink], ballot, notices


def remembering(seen, informative=None, first_seen=0.0):
    scopes = len(seen.fleet.scopes)
    return replace(
        Memory.empty(seen.fleet),
        informative={} if informative is None else {"slow": column(*informative)},
        first_seen=column(*[first_seen] * scopes),
    )


def test_d14_compat_who_never_was_informative_has_no_veto_until_it_is(one):
    gates, ballot, _ = vetoes(one, remembering(one), 10.0, compat=True)
    assert (gates, bool(ballot.shrink[0]), bool(ballot.frozen[0])) == ([False], True, False)
    answers = {"first": step(one, spare=1), "slow": step(one, spare=0)}
    ballot, _ = ballot_of(one, answers, memory=remembering(one), time=10.0, compat=True)
    assert (bool(ballot.votes[1].gates_shrink[0]), bool(ballot.shrink[0])) == (True, False)


@pytest.mark.parametrize(("age", "gates"), [(89, True), (95, False)], ids=["D15-89s", "D15-95s"])
def test_d15_compat_a_veto_ends_after_three_intervals(one, age, gates):
    assert vetoes(one, remembering(one, [100.0]), 100.0 + age, compat=True)[0] == [gates]


def test_d16_compat_liveness_is_that_of_each_model():
    seen = observe([{"name": "a", "model": "model-a"}, {"name": "b", "model": "model-b"}])
    assert vetoes(seen, remembering(seen, [NAN, 1000.0]), 1010.0, compat=True)[0] == [False, True]


def test_d17_compat_a_zero_time_stamp_counts_as_now(one):
    assert vetoes(one, remembering(one, [0.0]), 1e6, compat=True)[0] == [True]


def test_a_required_analyzer_that_is_silent_keeps_its_veto_and_says_so(one):
    gates, ballot, notices = vetoes(one, remembering(one, [100.0]), 191.0)
    assert (gates, bool(ballot.shrink[0])) == ([True], False)
    assert [(notice.code, notice.subject) for notice in notices] == [("analyzer_silent", "slow")]
    assert notices[0].text == (
        "analyzer slow has not judged ns/model for over 90 s; nothing shrinks there until it does"
        " (mend its signals, or set required: false on its entry)"
    )


def test_the_notice_counts_the_scopes():
    seen = observe([{"name": name, "model": f"m{name}"} for name in "abc"])
    assert "has not judged ns/ma and 2 more for" in vetoes(seen, remembering(seen, [NAN] * 3), 1000.0)[2][0].text


def test_three_silent_intervals_are_nothing_to_speak_of(one):
    assert vetoes(one, remembering(one, [100.0]), 190.0)[2] == ()


def test_a_scope_that_has_just_appeared_gives_its_analyzers_the_same_time(one):
    assert vetoes(one, remembering(one, first_seen=100.0), 190.0)[2] == ()
    assert len(vetoes(one, remembering(one, first_seen=100.0), 191.0)[2]) == 1
    assert vetoes(one, remembering(one, first_seen=NAN), 1e6)[2] == ()


def test_an_analyzer_that_is_not_required_loses_its_veto_and_its_freeze(one):
    gates, ballot, _ = vetoes(one, remembering(one, [100.0]), 190.0, optional=("slow",))
    assert (gates, bool(ballot.frozen[0])) == ([True], True)
    gates, ballot, notices = vetoes(one, remembering(one, [100.0]), 191.0, optional=("slow",))
    assert (gates, bool(ballot.frozen[0]), bool(ballot.shrink[0]), notices) == ([False], False, True, ())


def test_an_optional_analyzer_that_fails_for_long_loses_its_veto_too(one):
    answers = {"first": step(one, spare=1), "slow": None}
    for time, shrinks in ((190.0, False), (191.0, True)):
        ballot, _ = ballot_of(
            one, answers, memory=remembering(one, [100.0]), time=time, interval=30.0, optional=("slow",)
        )
        assert bool(ballot.shrink[0]) == shrinks


# ---------------------------------------------------------------------------------------------------------------------
# Anchor

TWO = [{"name": "v1", "current": 1}, {"name": "v2", "current": 1}]


def capacities(seen, *values, **columns):
    return Assessment.of(seen.fleet, unit="tokens", capacity=column(*values), demand=column(0.0), **columns)


def anchored(seen, answers, *, compat=True, **options):
    ballot, _ = ballot_of(seen, answers, compat=compat, **options)
    return ballot, ballot.anchor_capacity(seen.fleet.scope_of_variant)


def test_d18_the_only_vote_sizes_the_variants():
    # saturation does not vote; throughput: 200 a replica, 50 more required
    seen = observe([{"name": "v1", "accelerator": "A100", "cost": 10, "current": 2}])
    answer = capacities(seen, 200.0, required=column(50.0))
    ballot, size = anchored(seen, {"throughput": answer})
    assert (ballot.votes[ballot.anchor[0]].analyzer, size.tolist()) == ("throughput", [200.0])
    assert (float(seen.variants.current @ size), ballot.votes[0].required[0]) == (400.0, 50.0)


def test_d19_variants_the_anchor_lacks_are_sized_by_saturation_where_it_votes():
    seen = observe(TWO)
    # abstains, hence not live, but knows its capacities
    saturation = capacities(seen, 100.0, 110.0, verdict=np.array([Verdict.ABSTAIN]))
    ballot, size = anchored(seen, {"saturation": saturation, "throughput": capacities(seen, 200.0, NAN)})
    assert (ballot.anchor.tolist(), size.tolist()) == ([1], [200.0, 110.0])


def test_d20_and_are_not_sized_where_saturation_does_not_vote():
    seen = observe(TWO)
    _, size = anchored(seen, {"throughput": capacities(seen, 200.0, NAN)})
    assert size[0] == 200.0
    assert np.isnan(size[1])


def test_d21_there_is_no_anchor_without_a_live_vote_or_between_two():
    seen = observe(TWO)
    assert anchored(seen, {})[0].anchor.tolist() == [-1]
    assert anchored(seen, {"throughput": no_data(seen), "saturation": no_data(seen)})[0].anchor.tolist() == [-1]
    both = {"throughput": capacities(seen, 200.0, 1.0), "queueing": capacities(seen, 3.0, 1.0)}
    ballot, size = anchored(seen, both)
    assert ballot.anchor.tolist() == [-1]
    assert np.isnan(size).all()


@pytest.mark.parametrize("name", ["saturation", "saturation-v1", "saturation-v2"])
def test_compat_takes_saturation_for_the_anchor_wherever_it_stands(name):
    seen = observe(TWO)
    answers = {
        "throughput": capacities(seen, 200.0, 1.0),
        "queueing": capacities(seen, 3.0, 1.0),
        name: capacities(seen, 7.0, 8.0),
    }
    ballot, size = anchored(seen, answers)
    assert (ballot.anchor.tolist(), size.tolist()) == ([2], [7.0, 8.0])


def test_by_default_the_first_in_the_configured_order_that_knows_a_capacity_is_the_anchor():
    seen = observe([{"name": "v1", "model": "m"}, {"name": "v2", "model": "n"}])

    def answer(*capacity):
        return Assessment.of(seen.fleet, unit="tokens", capacity=column(*capacity), demand=column(1.0, 1.0))

    answers = {"first": answer(NAN, 5.0), "saturation": answer(7.0, 8.0), "third": answer(1.0, 1.0)}
    ballot, size = anchored(seen, answers, compat=False)
    assert (ballot.anchor.tolist(), size.tolist()) == ([1, 0], [7.0, 5.0])
