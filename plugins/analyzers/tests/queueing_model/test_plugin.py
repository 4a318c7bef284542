"""The analyzer `queueing-model` on observations: demand, capacity, objectives, what freezes, and what it remembers."""

import math

import numpy as np
import pytest

from wva_analyzers.queueing_model import QueueingModel
from wva_analyzers.queueing_model.serving import Engines, latencies, rate_bounds
from wva_core.domain import Allocation, Memory, Verdict
from wva_core.domain.codec import decode, encode
from wva_core.engine.ballot import vote_of
from wva_core.errors import PolicyError
from wva_core.policy.documents import validate
from wva_core.testing import observe, settings

ALPHA, BETA, GAMMA, BATCH = 0.007, 3e-5, 4e-7, 64
PROFILE = {
    "model": "model",
    "accelerator": "H100",
    "alphaMs": 7.0,
    "betaMsPerToken": 0.03,
    "gammaMsPerToken": 0.0004,
}
GOALS = {"targetTTFT": 500, "targetITL": 50}
PROMISE = {"model": "m", "slo-ttft": 500, "slo-tpot": 50}


def parameters(**given):
    return validate(QueueingModel.Parameters, given, "policy.yaml", PolicyError, "parameters")


def engine(input_tokens=1024, output_tokens=256):
    return Engines(*(np.array([float(one)]) for one in (ALPHA, BETA, GAMMA, BATCH, input_tokens, output_tokens)))


def replica(rate, input_tokens=1024, output_tokens=256, variant="v", fleet=1.0, **signals):
    """A row of an engine that behaves as the profile says, one of a fleet."""
    shown = {"variant": variant, "arrival_rate": rate, "request_rate": rate, "waiting": 0, "max_batch": BATCH}
    if rate:
        seen = latencies(engine(input_tokens, output_tokens), np.array([rate]), np.array([fleet]))
        shown |= {
            "ttft": seen.ttft[0],
            "itl": seen.itl[0],
            "running": seen.in_service[0],
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "input_token_rate": rate * input_tokens,
            "output_token_rate": rate * output_tokens,
        }
    return {**shown, **signals}


def fleet(rows, *, time=0.0, scopes=(), **variant):
    return observe([{"name": "v", **variant}], rows, scopes, time=time)


def assess(seen, state=None, **given):
    chosen = parameters(**given)
    asked = settings(chosen, seen, scale_up=1.0, scale_down=0.85)
    return QueueingModel(chosen).assess(seen, asked, {} if state is None else state)


def follow(seen_at, cycles, **given):
    """The answer after some cycles at 15 s."""
    answer = None
    for cycle in range(cycles):
        answer = assess(seen_at(cycle * 15.0), None if answer is None else dict(answer.state), **given)
    return answer


def sentence(answer, scope=0):
    details = {name: column[scope] for name, column in answer.details.items() if column.shape == answer.demand.shape}
    return answer.reasons[answer.reason[scope]].format(**details)


def steady(rate=1.0, replicas=4, **signals):
    return lambda time: fleet([replica(rate, **signals)] * replicas, time=time)


# ---- demand and capacity


def test_a_longer_answer_makes_a_replica_worth_less_at_once():
    short = assess(steady(1.0)(0.0), profiles=[PROFILE], **GOALS)
    long = assess(steady(1.0, output_tokens=512)(0.0), profiles=[PROFILE], **GOALS)
    assert long.demand[0] == pytest.approx(short.demand[0], rel=0.05)
    assert long.capacity[0] < 0.65 * short.capacity[0]


def test_lengths_of_the_last_minute_count_before_the_longer_average_has_followed():
    # 240 requests a minute in the fleet: 240/270 of the weight is on the tokens of the last minute
    seen = fleet([{**replica(1.0), "output_token_rate": 512.0}] * 4)
    answer = assess(seen, profiles=[PROFILE], **GOALS)
    assert answer.details["output_tokens"][0] == pytest.approx((240 * 512 + 30 * 256) / 270)


def test_more_load_than_the_replicas_carry_asks_to_grow_and_pending_ones_count():
    capacity = assess(steady()(0.0), profiles=[PROFILE], **GOALS).capacity[0]
    rows = [replica(1.2 * capacity, ttft=3.0, itl=0.05)] * 2
    for pending, grows in ((0, True), (2, False)):
        seen = fleet(rows, current=2 + pending, pending=pending)
        chosen = parameters(profiles=[PROFILE], tuningEnabled=False, **GOALS)
        asked = settings(chosen, seen, scale_up=1.0, scale_down=0.85)
        answer = QueueingModel(chosen).assess(seen, asked, {})
        assert (vote_of("q", answer, seen, asked).required[0] > 0) == grows


def test_requests_that_wait_are_worked_off_within_the_time_asked_for():
    # 2 requests/s with 0.5 s to the first token: half a request may wait; 300 do, so 299.5 more within a minute
    calm = assess(fleet([replica(1.0)] * 2), profiles=[PROFILE], **GOALS)
    piled = assess(fleet([replica(1.0, waiting=150)] * 2), profiles=[PROFILE], **GOALS)
    assert piled.demand[0] - calm.demand[0] == pytest.approx(299.5 / 60, rel=0.01)


def test_what_piles_up_in_the_gateway_is_load_that_no_replica_sees():
    first = assess(fleet([replica(1.0)], scopes=[{"queue_size": 0, "arrival_rate": 1.0}]), profiles=[PROFILE], **GOALS)
    seen = fleet([replica(1.0)], scopes=[{"queue_size": 60, "arrival_rate": 1.0}], time=15.0)
    second = assess(seen, dict(first.state), profiles=[PROFILE], **GOALS)
    assert second.details["offered"][0] == pytest.approx(1.0 + 60 / 15)


def test_a_model_of_several_classes_shares_what_the_gateway_tells():
    variants = [{"name": name, "service_class": name} for name in ("gold", "tin")]
    rows = [replica(3.0, variant="gold"), replica(1.0, variant="tin")]
    seen = observe(variants, rows, [{"queue_size": 40, "arrival_rate": 4.0}])
    answer = assess(seen, profiles=[PROFILE], **GOALS)
    np.testing.assert_allclose(answer.details["offered"], [3.0, 1.0])
    np.testing.assert_allclose(answer.details["waiting"], [30.0, 10.0])


def test_a_cache_that_holds_fewer_requests_than_the_batch_is_the_limit():
    wide = assess(steady(1.0)(0.0), profiles=[PROFILE], **GOALS)
    # 0.9 x 12800 tokens / (1024 + 128 tokens) = 10 requests
    tight = assess(steady(1.0, kv_capacity_tokens=12_800)(0.0), profiles=[PROFILE], **GOALS)
    assert tight.details["batch"].tolist() == [10.0]
    assert tight.capacity[0] < wide.capacity[0]


def test_capacity_is_that_of_the_fleet_that_is_asked_for():
    goals = {**GOALS, "targetQuantile": 0.99, "profiles": [PROFILE], "tuningEnabled": False}
    alone = assess(fleet([replica(1.0)]), **goals)
    many = assess(fleet([replica(1.0)] * 50), **goals)
    assert many.capacity[0] > 1.1 * alone.capacity[0]


def two_cards(small, large):
    """A variant that is full with 8 requests beside one of the same speed that takes 64, and how many run of each."""
    rows = [replica(0.3, variant="a-small", max_batch=8)] * small + [replica(0.3, variant="b-large")] * large
    seen = observe([{"name": "a-small", "current": small}, {"name": "b-large", "current": large}], rows)
    profile = {**PROFILE, "maxBatch": 8}  # for the one that does not run
    return assess(seen, profiles=[profile], tuningEnabled=False, **GOALS)


def test_beside_replicas_that_are_full_with_few_requests_others_get_no_more_of_them():
    mixed, alone = two_cards(4, 4), two_cards(0, 4)
    # with n requests in it a replica serves n / (256 x 7 ms + n (1279 x 30 us + 256 x 1152 x 0.4 us)); n is below 8
    at_eight = 8 / (256 * ALPHA + 8 * (BETA * 1279 + GAMMA * 256 * 1152))
    assert mixed.capacity[0] <= mixed.capacity[1] <= at_eight
    assert alone.capacity[1] > 1.5 * at_eight


def test_a_variant_that_would_slow_others_down_by_more_than_it_adds_is_not_added():
    answer = two_cards(0, 4)
    assert np.isnan(answer.capacity[0])
    assert "router" in answer.reasons[answer.capacity_reason[0]]
    assert two_cards(1, 4).capacity[0] > 0  # what runs, runs


# ---- objectives


@pytest.mark.parametrize("k", [1.5, 2.0, 3.0, 5.0])
def test_inferred_objectives_mean_the_utilisation_they_are_documented_with(k):
    answer = assess(fleet([replica(1.0)]), profiles=[PROFILE], sloMultiplier=k, tuningEnabled=False)
    # a full batch of 64: each of 256 steps takes 7 ms, and what 64 requests of (1024 + 255) tokens add, read 1152 long
    most = 0.999 * BATCH / (256 * ALPHA + BATCH * (BETA * 1279 + GAMMA * 256 * 1152))
    assert answer.capacity[0] == pytest.approx((1 - 1 / k) * most, rel=1e-4)


def test_objectives_are_for_ninety_nine_in_a_hundred_unless_the_mean_is_asked_for():
    seen = fleet([replica(1.0)])
    unsaid, said, mean = (
        assess(seen, profiles=[PROFILE], tuningEnabled=False, **GOALS, **given).capacity[0]
        for given in ({}, {"targetQuantile": 0.99}, {"targetQuantile": None})
    )
    assert unsaid == said < mean
    # at the mean's capacity one of the two means is just kept
    at_most = latencies(engine(), np.array([mean]), np.ones(1))
    assert max(at_most.ttft[0] / 0.5, at_most.itl[0] / 0.05) == pytest.approx(1.0, rel=1e-3)


def test_explicit_objectives_come_before_the_class_and_these_before_inferred_ones():
    classes = [{"name": "gold", "priority": 1, "data": [{"model": "model", "slo-ttft": 300, "slo-tpot": 20}]}]
    seen = fleet([replica(1.0)], service_class="gold")
    explicit = assess(seen, serviceClasses=classes, profiles=[PROFILE], **GOALS)
    of_class = assess(seen, serviceClasses=classes, profiles=[PROFILE])
    other = [{**classes[0], "data": [{**classes[0]["data"][0], "model": "another"}]}]
    inferred = assess(fleet([replica(1.0)]), serviceClasses=other, profiles=[PROFILE])
    said = [(one.details["goal_ttft_ms"][0], one.details["goal_itl_ms"][0]) for one in (explicit, of_class)]
    assert said == [pytest.approx((500, 50)), pytest.approx((300, 20))]
    assert [one.details["objective_source"][0] for one in (explicit, of_class, inferred)] == [1, 2, 0]


def test_a_scope_without_a_class_has_the_objectives_of_the_first_that_promises_its_model():
    def gold(model):
        return {"name": f"gold-{model}", "data": [{"model": model, "slo-ttft": 300, "slo-tpot": 20}]}

    later = {"name": "late", "data": [{"model": "model", "slo-ttft": 900, "slo-tpot": 90}]}
    answer = assess(fleet([replica(1.0)]), serviceClasses=[gold("other"), gold("model"), later], profiles=[PROFILE])
    assert answer.details["goal_ttft_ms"][0] == pytest.approx(300)
    assert answer.details["objective_source"][0] == 2


def test_a_class_that_policy_does_not_name_is_frozen_and_told():
    classes = [{"name": "gold", "data": []}]
    seen = observe(
        [{"name": "v", "service_class": "tin"}, {"name": "w", "model": "other"}],
        [replica(1.0), replica(1.0, variant="w")],
    )
    answer = assess(seen, serviceClasses=classes, profiles=[PROFILE])
    assert answer.verdict[0] == Verdict.FREEZE
    assert "serviceClasses" in sentence(answer)
    assert answer.verdict[1] != Verdict.FREEZE  # the other model goes on


def test_objectives_out_of_reach_name_the_nearest_that_hold_for_as_many_requests():
    given = {"profiles": [PROFILE], "tuningEnabled": False}
    seen = fleet([replica(1.0)])
    strict = assess(seen, targetTTFT=10, targetITL=50, **given)
    assert strict.verdict.tolist() == [Verdict.FREEZE]
    nearest = {f"target{name}": float(strict.details[f"feasible_{name.lower()}_ms"][0]) for name in ("TTFT", "ITL")}
    looser, tighter = ({key: value * by for key, value in nearest.items()} for by in (1.01, 0.99))
    assert assess(seen, **looser, **given).capacity[0] > 0
    assert np.isnan(assess(seen, **tighter, **given).capacity[0])


def test_means_out_of_reach_name_the_nearest_that_hold():
    given = {"profiles": [PROFILE], "tuningEnabled": False, "targetQuantile": None}
    answer = assess(fleet([replica(1.0)]), targetTTFT=10, targetITL=50, **given)
    idle = latencies(engine(), rate_bounds(engine())[0], np.ones(1))
    assert answer.verdict.tolist() == [Verdict.FREEZE]
    assert np.isnan(answer.capacity).all()
    assert answer.details["feasible_ttft_ms"][0] == pytest.approx(1000 * idle.ttft[0], rel=0.01)
    assert f"targetTTFT {1000 * idle.ttft[0]:.0f}" in sentence(answer)


# ---- what is not known


@pytest.mark.parametrize(("signal", "word"), [("ttft", "first token"), ("itl", "between tokens")])
def test_a_latency_that_nobody_reports_freezes_and_is_named(signal, word):
    answer = assess(fleet([replica(1.0, **{signal: math.nan})] * 2), profiles=[PROFILE], **GOALS)
    assert answer.verdict.tolist() == [Verdict.FREEZE]
    assert word in sentence(answer)


def test_without_any_arrival_rate_there_is_no_load_of_zero():
    answer = assess(fleet([replica(1.0, arrival_rate=math.nan)] * 2), profiles=[PROFILE], **GOALS)
    assert np.isnan(answer.demand).all()
    assert answer.verdict.tolist() == [Verdict.FREEZE]


def test_idle_replicas_have_no_latency_and_may_go():
    busy = follow(steady(), 20, profiles=[PROFILE], **GOALS)
    state, answer = dict(busy.state), None
    for cycle in range(400):
        answer = assess(fleet([replica(0.0)] * 3, time=300.0 + 15.0 * cycle), state, profiles=[PROFILE], **GOALS)
        state = dict(answer.state)
    assert answer.verdict.tolist() == [Verdict.JUDGED]
    assert answer.demand[0] < answer.capacity[0]
    assert answer.capacity[0] > 0


def test_requests_that_nobody_answers_let_nothing_go():
    before = follow(steady(), 20, profiles=[PROFILE], **GOALS)
    stuck = fleet([replica(1.0, ttft=math.nan, itl=math.nan, request_rate=0.0)] * 4, time=300.0)
    answer = assess(stuck, dict(before.state), profiles=[PROFILE], **GOALS)
    assert answer.verdict.tolist() == [Verdict.NO_SHRINK]


def test_a_replica_that_is_not_scraped_yet_is_hidden_by_nothing_but_the_gateway():
    rows = [replica(1.0), {"variant": "v"}]
    without = follow(lambda time: fleet(rows, time=time), 20, profiles=[PROFILE], **GOALS)
    assert without.verdict.tolist() == [Verdict.NO_SHRINK]
    rows[1]["waiting"] = 0
    told = follow(
        lambda time: fleet(rows, time=time, scopes=[{"arrival_rate": 1.0, "queue_size": 0}]),
        20,
        profiles=[PROFILE],
        **GOALS,
    )
    assert told.verdict.tolist() == [Verdict.JUDGED]


def test_nothing_goes_before_the_load_was_followed_for_a_start_up():
    early = follow(steady(), 5, profiles=[PROFILE], **GOALS)
    late = follow(steady(), 15, profiles=[PROFILE], **GOALS)
    assert early.verdict.tolist() == [Verdict.NO_SHRINK]
    assert late.verdict.tolist() == [Verdict.JUDGED]


def test_a_variant_of_which_nothing_is_known_has_no_capacity_and_says_what_helps():
    seen = observe(
        [{"name": "v"}, {"name": "w", "accelerator": "L4", "current": 0}],
        [replica(1.0)],
    )
    answer = assess(seen, profiles=[PROFILE], **GOALS)
    assert answer.capacity[0] > 0
    assert np.isnan(answer.capacity[1])
    assert "profile" in answer.reasons[answer.capacity_reason[1]]


# ---- learning and memory


def test_without_a_profile_the_capacity_is_learnt_from_latencies():
    def busier(time):  # a load that rises from 0.5 to 4.3 requests/s a replica
        return fleet([replica(0.5 + time / 75.0, fleet=4.0)] * 4, time=time)

    given = follow(busier, 20, profiles=[PROFILE], tuningEnabled=False, **GOALS)
    learnt = follow(busier, 20, **GOALS)
    assert learnt.capacity[0] == pytest.approx(given.capacity[0], rel=0.15)


def test_without_tuning_only_profiles_count():
    answer = follow(steady(), 3, tuningEnabled=False, **GOALS)
    assert np.isnan(answer.capacity).all()
    assert answer.verdict.tolist() == [Verdict.FREEZE]


def test_memory_follows_variants_that_come_and_go_and_a_restart():
    before = follow(steady(2.0), 20, **GOALS)
    rows = [replica(2.0)] * 4
    wider = observe([{"name": "a", "model": "a"}, {"name": "v"}], rows, time=300.0)
    after = assess(wider, decode(encode(dict(before.state))), **GOALS)
    estimate = after.state["estimate"]
    assert np.isnan(estimate["x"][0]).all()
    np.testing.assert_allclose(estimate["x"][1], before.state["estimate"]["x"][0], atol=0.05)
    back = assess(fleet(rows, time=315.0), dict(after.state), **GOALS)
    assert back.state["estimate"]["used"][0] == before.state["estimate"]["used"][0] + 2
    memory = Memory(**{**vars_of(Memory.empty(wider.fleet)), "states": {"queueing-model": after.state}})
    kept = Memory.from_bytes(memory.to_bytes()).states["queueing-model"]
    np.testing.assert_array_equal(kept["estimate"]["x"], estimate["x"])


def test_a_state_of_another_version_is_not_read():
    answer = assess(fleet([replica(1.0)]), {"version": 99, "anything": 1}, profiles=[PROFILE], **GOALS)
    assert answer.state["version"] == 1


def test_start_ups_are_measured():
    state = None
    for time, pending_since in ((0.0, math.nan), (15.0, 15.0), (105.0, 15.0), (120.0, math.nan)):
        seen = fleet([replica(1.0)], time=time, pending_since=pending_since)
        answer = assess(seen, state, profiles=[PROFILE], **GOALS)
        state = dict(answer.state)
    assert state["start_up"].tolist() == [105.0]


# ---- predictions and parameters


LEARNT = (("alpha_ms", 1e3), ("beta_us", 1e6), ("gamma_us", 1e6))
ENGINE = Engines(*(np.array([one], dtype=float) for one in (ALPHA, BETA, GAMMA, BATCH, 1024, 256)))


def predict(seen, replicas, state=None, **given):
    """What is expected at so many replicas by what the cycle that saw this left behind."""
    chosen = parameters(**given)
    left = dict(assess(seen, state, **given).state)
    return QueueingModel(chosen).predict(seen, Allocation(np.array([replicas])), settings(chosen, seen), left)


def test_it_predicts_the_latencies_of_another_allocation():
    seen, known = fleet([replica(2.0)] * 2), {"profiles": [PROFILE], "tuningEnabled": False, **GOALS}
    told = predict(seen, 1.0, **known)
    # 4 requests/s for one replica
    alone = latencies(ENGINE, np.array([4.0]), np.ones(1))
    assert told.ttft[0] == pytest.approx(alone.ttft[0], rel=1e-6)
    assert told.itl[0] == pytest.approx(alone.itl[0], rel=1e-6)
    assert told.utilization[0] == pytest.approx(alone.in_service[0] / BATCH, rel=1e-6)
    assert predict(seen, 4.0, **known).ttft[0] < told.ttft[0]
    assert np.isnan(predict(seen, 0.0, **known).ttft).all()


def test_it_expects_equal_numbers_of_requests_in_unequal_replicas():
    fast = {**PROFILE, "accelerator": "B200", "alphaMs": 2.0}
    rows = [replica(2.0, variant="a")] * 2 + [replica(2.0, variant="b")] * 2
    seen = observe([{"name": "a"}, {"name": "b", "accelerator": "B200"}], rows)
    chosen = parameters(profiles=[PROFILE, fast], tuningEnabled=False, **GOALS)
    asked, two = settings(chosen, seen), Allocation(np.array([2.0, 2.0]))
    state = dict(QueueingModel(chosen).assess(seen, asked, {}).state)
    told = QueueingModel(chosen).predict(seen, two, asked, state)
    assert told.utilization[0] == pytest.approx(told.utilization[1], rel=0.1)  # both serve 64 at most
    assert told.itl[1] < 0.6 * told.itl[0]


def test_it_predicts_with_what_it_has_learnt_and_without_that_nothing():
    def busier(time):
        return fleet([replica(0.5 + time / 75.0, fleet=4.0)] * 4, time=time)

    answer = follow(busier, 20, **GOALS)
    seen, chosen = busier(19 * 15.0), parameters(**GOALS)
    asked, six = settings(chosen, seen), Allocation(np.array([6.0]))
    told = QueueingModel(chosen).predict(seen, six, asked, dict(answer.state))
    alpha, beta, gamma = (answer.details[name] / scale for name, scale in LEARNT)
    engine = Engines(alpha, beta, gamma, np.array([64.0]), np.array([1024.0]), np.array([256.0]))
    # four times 0.5 + 285 / 75 = 4.3 requests/s, spread over six
    expected = latencies(engine, np.array([4 * 4.3 / 6]), np.array([6.0]))
    assert told.itl[0] == pytest.approx(expected.itl[0], rel=1e-6)
    assert told.ttft[0] == pytest.approx(expected.ttft[0], rel=1e-6)
    assert np.isnan(QueueingModel(chosen).predict(seen, six, asked, {}).ttft).all()


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"targetTTFT": 500}, "parameters"),
        ({"targetITL": 50}, "parameters"),
        ({"targetTTFT": -1, "targetITL": 50}, "parameters.targetTTFT"),
        ({"sloMultiplier": 1.0}, "parameters.sloMultiplier"),
        ({"sloMultiplier": 0.5}, "parameters.sloMultiplier"),
        ({"targetQuantile": 1.0, **GOALS}, "parameters.targetQuantile"),
        ({"targetQuantile": 0.95, "compat": True, **GOALS}, "parameters"),
        ({"coverage": 1.0}, "parameters.coverage"),
        ({"profiles": [PROFILE, PROFILE]}, "parameters"),
        ({"profiles": [{**PROFILE, "alphaMs": 0}]}, "parameters.profiles[0].alphaMs"),
        ({"serviceClasses": [{"name": "a", "data": [{"model": "m", "slo-ttft": 5}]}]}, "serviceClasses[0].data[0]"),
        ({"serviceClasses": [{"name": "a", "data": [PROMISE, {**PROMISE, "slo-ttft": 700}]}]}, "parameters"),
    ],
)
def test_parameters_that_mean_nothing_are_refused_by_name(given, key):
    with pytest.raises(PolicyError) as refused:
        parameters(**given)
    assert key in refused.value.key


@pytest.mark.parametrize("given", [{}, {"sloMultiplier": 3.0}, GOALS, {"targetTTFT": 0, "targetITL": 0}])
def test_upstreams_valid_settings_are_valid(given):
    parameters(**given)


def vars_of(memory):
    return {name: getattr(memory, name) for name in memory.__dataclass_fields__}
