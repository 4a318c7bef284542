"""An explanation says what was seen, who said what, and which limit decided."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from tests.unit.telemetry.made_records import first_record, fleet_of, run_of
from wva_core.cli.explain import explain as command
from wva_core.domain import (
    SCOPE_SIGNALS,
    Assessment,
    Ballot,
    Columns,
    Fleet,
    LimitRows,
    Limits,
    Observation,
    Plan,
    Quality,
    Reason,
    ReplicaIndex,
    ReplicaTable,
    Variant,
    VariantTable,
    Verdict,
    Vote,
)
from wva_core.domain.arrays import booleans, floats, integers
from wva_core.domain.record import Record
from wva_core.errors import PluginFailure, RecordError
from wva_core.hooks import Prediction
from wva_core.telemetry.explanation import explain, figure
from wva_core.telemetry.record_writer import RecordWriter
from wva_core.testing.builders import ballot, vote

NAN = float("nan")
BOUNDS = {"staleAfterSeconds": 60.0, "unavailableAfterSeconds": 300.0}


def case(**changes):
    """
    Two models, `chat` on a cheap and a dear variant and `code` on one.

    `chat` asks for 14 requests at a time; its replicas carry 4 (cheap) and 8 (dear). There are 5 GPUs; cheap has 2
    replicas, dear 1, code 1, so one more fits, and the plan gives it to cheap.
    """
    fleet = Fleet(
        [
            Variant("ns", "chat-cheap", "chat", accelerator="L40S"),
            Variant("ns", "chat-dear", "chat", accelerator="H100"),
            Variant("other", "code", "code", accelerator="H100"),
        ]
    )
    index, _ = ReplicaIndex.of(fleet, ["ns/chat-cheap", "ns/chat-cheap", "ns/chat-dear"], ["a-1", "a-2", "b-1"])
    table = VariantTable.of([2, 1, 1], ready=[2, 1, 0], cost=[2.0, 6.0, 6.0])
    seen = Observation.of(
        1000.0,
        fleet,
        table,
        replicas=ReplicaTable.of(
            index,
            {"kv_usage": [0.2, 0.4, 0.9], "waiting": [1.0, np.nan, 3.0], "running": [5.0, 5.0, 4.0]},
            {"kv_usage": [1.0, 2.0, 3.0], "running": [70.0, 1.0, 400.0]},
        ),
        scopes=Columns(2, SCOPE_SIGNALS, {"queue_size": [7.0, np.nan]}),
        conflicts={"queue_size": booleans([True, False])},
    )
    capacity = floats([4.0, 8.0, np.nan])
    answer = Assessment(
        unit="requests",
        capacity=capacity,
        demand=floats([14.0, np.nan]),
        verdict=integers([Verdict.JUDGED, Verdict.FREEZE]),
        reason=integers([1, 2]),
        reasons=(
            "",
            "{demand} requests on {supply:.1f}, {nothing} left",
            "no replica of {model",
            "measured {seen} times",
        ),
        capacity_reason=integers([3, 0, 0]),
        details={"demand": floats([14.0, np.nan]), "supply": floats([16.0, 0.0]), "seen": floats([12.0, 3.0, np.nan])},
    )
    votes = (
        Vote(
            "load", "requests", capacity, floats([2.5, 0.0]), floats([0.0, 0.0]), answer.demand, floats([16.0, np.nan]),
            booleans([True, True]), booleans([True, False]), floats([1.0, 1.0]),
        ),
        Vote(
            "steps", "replicas", floats([1.0, 1.0, 1.0]), floats([0.0, 0.0]), floats([1.0, 0.0]),
            floats([np.nan, np.nan]), floats([np.nan, np.nan]), booleans([True, False]), booleans([True, True]),
            floats([1.0, 1.0]),
        ),
    )  # fmt: skip
    limits = Limits(
        low=floats([0.0, 1.0, 0.0]),
        high=floats([10.0, np.inf, 1.0]),
        rows=LimitRows(
            labels=("GPUs",),
            offsets=integers([0, 3]),
            variant=integers([0, 1, 2]),
            coefficient=floats([1.0, 2.0, 1.0]),
            lower=floats([-np.inf]),
            upper=floats([6.0]),
        ),
    )
    plan = Plan(
        time=1000.0,
        fleet=fleet,
        current=table.current,
        desired=floats([3.0, 1.0, np.nan]),
        wanted=floats([4.0, 1.0, np.nan]),
        low=limits.low,
        high=limits.high,
        reason=integers([Reason.BOUND_ROW, Reason.BOUND_MIN, Reason.FROZEN]),
        binding_row=integers([0, -1, -1]),
        stalled=booleans([False, False, True]),
        limits=("GPUs",),
    )
    record = Record(
        cycle=42,
        time=1000.0,
        policy={"bounds": BOUNDS},
        observation=seen,
        failures={"analyzer late": "was late", "optimizer o": "raised"},
        assessments={"load": answer},
        ballot=Ballot(
            votes=votes,
            anchor=integers([0, -1]),
            grow=booleans([True, False]),
            shrink=booleans([False, False]),
            frozen=booleans([False, True]),
        ),
        limits=limits,
        plan=plan,
        base=floats([2.0, 1.0, 1.0]),
    )
    return replace(record, **changes)


def scope(record, row=0):
    return explain(record).scopes[row]


def signals(record, row=0):
    return {one.signal: one for one in scope(record, row).signals}


def test_signals_are_summed_up_over_the_rows_where_they_are_known():
    kv, waiting = (signals(case())[name] for name in ("kv_usage", "waiting"))
    # (0.2 + 0.4 + 0.9) / 3 = 0.5
    assert (kv.minimum, kv.mean, kv.maximum) == (0.2, pytest.approx(0.5), 0.9)
    assert (kv.known, kv.total, kv.age, kv.quality, kv.unit) == (3, 3, 3.0, "ok", "fraction")
    assert (waiting.minimum, waiting.mean, waiting.maximum) == (1.0, 2.0, 3.0)
    assert (waiting.known, waiting.total, waiting.quality) == (2, 3, "partial")


def test_what_is_older_than_the_policy_uses_counts_as_missing_and_what_is_old_as_stale():
    # ages 70, 1 and 400: the last is not used from 300 on, the first stale from 60 on
    running = signals(case())["running"]
    assert (running.known, running.total, running.quality, running.age) == (2, 3, "stale", 70.0)


@pytest.mark.parametrize(
    ("overrides", "quality"),
    [
        ([], "stale"),
        ([{"match": {"modelID": "ch*"}, "bounds": {"staleAfterSeconds": 100}}], "partial"),
        ([{"match": {"modelID": "code"}, "bounds": {"staleAfterSeconds": 100}}], "stale"),
        (
            [
                {"match": {"modelID": "chat", "namespace": "ns"}, "bounds": {"staleAfterSeconds": 100}},
                {"match": {"namespace": "ns"}, "bounds": {"staleAfterSeconds": 10}},
            ],
            "partial",  # the exact one wins over the loose one behind it
        ),
    ],
    ids=["none", "pattern", "another-model", "exact-wins"],
)
def test_the_age_limits_are_those_of_the_model(overrides, quality):
    assert signals(case(policy={"bounds": BOUNDS, "overrides": overrides}))["running"].quality == quality


def test_quality_is_the_same_as_the_observation_says():
    record = first_record(fleet_of(6), 3, seed=4)
    for row, one in enumerate(explain(replace(record, policy={"bounds": {"unavailableAfterSeconds": 1e9}})).scopes):
        for signal in one.signals:
            if signal.level != "extra":
                expected = record.observation.quality(signal.signal, 60.0, signal.level)[row]
                assert signal.quality == Quality(int(expected)).name.lower()


def test_conflicts_and_missing_values_of_a_scope_are_told():
    assert signals(case())["queue_size"].quality == "conflicting"
    assert signals(case(), 1)["queue_size"].quality == "missing"


def test_an_answer_is_told_with_its_numbers_and_its_sentence():
    load = scope(case()).answers[0]
    assert (load.analyzer, load.unit, load.verdict) == ("load", "requests", "judged")
    assert (load.demand, load.supply, load.required, load.spare) == (14.0, 16.0, 2.5, 0.0)
    assert (load.capacity_low, load.capacity_high) == (4.0, 8.0)
    # a place without a number of that name stays as it is written
    assert load.sentence == "14 requests on 16.0, {nothing} left"
    assert load.details == {"demand": 14.0, "supply": 16.0}


def test_a_sentence_that_cannot_be_filled_stands_as_it_is():
    assert scope(case(), 1).answers[0].sentence == "no replica of {model"


def test_an_analyzer_that_failed_is_told_with_its_reason_and_an_optimizer_only_once():
    answers = scope(case()).answers
    assert [(one.analyzer, one.verdict, one.sentence) for one in answers[1:]] == [("late", "failed", "was late")]
    assert explain(case()).failures == {"analyzer late": "was late", "optimizer o": "raised"}


def test_the_ballot_says_who_wants_growth_and_whose_veto_stops_shrinking():
    growing, frozen = scope(case()).ballot, scope(case(), 1).ballot
    assert (growing.outcome, growing.anchor, growing.growth_by) == ("grow", "load", ("load",))
    assert growing.shrink_blocked_by == ("load",)
    assert (frozen.outcome, frozen.anchor, frozen.shrink_blocked_by) == ("frozen", "", ("load",))


def test_a_variant_is_told_from_what_is_there_to_what_there_should_be():
    cheap = scope(case()).variants[0]
    assert (cheap.variant, cheap.accelerator, cheap.cost, cheap.gpus) == ("ns/chat-cheap", "L40S", 2.0, 1.0)
    assert (cheap.current, cheap.ready, cheap.pending, cheap.base) == (2.0, 2.0, 0.0, 2.0)
    assert (cheap.wanted, cheap.low, cheap.high, cheap.desired) == (4.0, 0.0, 10.0, 3.0)
    assert (cheap.reason, cheap.sentence) == ("bound_row", Reason.BOUND_ROW.sentence)
    assert (cheap.capacity, cheap.capacity_sentence) == (4.0, "measured 12 times")


def test_what_decided_has_its_name():
    cheap, dear = scope(case()).variants
    # desired 3 x 1 + 1 x 2, code not known and counted as nothing
    assert cheap.binding == "GPUs (5 of 6 used)"
    assert dear.binding == "minimum of 1 replicas"
    assert scope(case(), 1).variants[0].binding == ""


def test_room_is_what_every_limit_leaves():
    # GPUs at the base: 2 x 1 + 1 x 2 + 1 x 1 = 5 of 6: one more of one GPU, none of two; code may have 1 and has it
    assert [one.room for one in (*scope(case()).variants, *scope(case(), 1).variants)] == [1.0, 0.0, 0.0]


def test_a_base_that_was_not_written_down_is_not_known():
    assert math.isnan(scope(case(base=None)).variants[0].base)


def test_a_stalled_variant_is_told():
    assert scope(case(), 1).variants[0].stalled


def test_only_what_is_asked_for_is_told():
    assert [one.label for one in explain(case(), model="chat").scopes] == ["ns/chat"]
    assert [one.label for one in explain(case(), namespace="other").scopes] == ["other/code"]


@pytest.mark.parametrize(
    ("model", "namespace", "message"),
    [
        ("chatt", None, "records: model: is not in cycle 42 (got 'chatt'); use one of chat, code"),
        (None, "n", "records: namespace: is not in cycle 42 (got 'n'); use one of ns, other"),
        ("chat", "other", "records: namespace: is not in cycle 42 (got 'other'); use one of ns"),
    ],
)
def test_an_unknown_model_or_namespace_is_refused_with_those_there_are(model, namespace, message):
    with pytest.raises(RecordError) as refusal:
        explain(case(), model, namespace)
    assert str(refusal.value) == message


def test_json_has_null_for_not_known_and_words_for_no_limit():
    plain = json.loads(json.dumps(explain(case()).to_plain(), allow_nan=False))
    dear, code = plain["scopes"][0]["variants"][1], plain["scopes"][1]["variants"][0]
    assert dear["high"] == "unlimited"
    assert code["desired"] is None
    assert plain["scopes"][0]["answers"][0]["demand"] == 14.0


def test_any_record_can_be_explained():
    for record in (*run_of(2), first_record(fleet_of(1), 0), replace(case(), observed=False)):
        json.dumps(explain(record).to_plain(), allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3"),
        (0.5, "0.5"),
        (1 / 3, "0.3333"),
        (123456.789, "123457"),
        (0.000123, "1.23e-04"),
        (math.nan, "unknown"),
        (math.inf, "unlimited"),
        (0.0, "0"),
    ],
)
def test_figures_are_short(value, text):
    assert figure(value) == text


def test_the_priority_of_a_scope_is_told_where_an_analyzer_knows_it():
    ballot = replace(case().ballot, priority=floats([2.0, NAN]))
    first, second = explain(case(ballot=ballot)).scopes
    assert first.ballot.priority == 2.0
    assert math.isnan(second.ballot.priority)
    assert math.isnan(explain(case()).scopes[0].ballot.priority)


def test_a_detail_that_is_named_as_one_of_variants_is_read_by_variant_where_there_are_as_many_scopes():
    # one variant in each scope, but in another order: variants by name, scopes by model
    fleet = Fleet([Variant("ns", "a", "second"), Variant("ns", "b", "first")])
    seen = Observation.of(0.0, fleet, VariantTable.of([1, 1]))
    answer = Assessment.of(
        fleet,
        unit="requests",
        demand=[1.0, 2.0],
        capacity=[4.0, 5.0],
        capacity_reason=[1, 1],
        reasons=("", "{fits} at once"),
        details={"fits": floats([4.0, 5.0]), "load": floats([1.0, 2.0])},
        per_variant=("fits",),
    )
    asked = ballot(seen, vote(seen, analyzer="load", capacity=answer.capacity))
    record = replace(case(), observation=seen, assessments={"load": answer}, ballot=asked, base=floats([1.0, 1.0]))
    plan = replace(
        case().plan,
        fleet=fleet,
        **{name: getattr(case().plan, name)[:2] for name in ("current", "desired", "wanted", "low", "high", "reason")},
        binding_row=integers([-1, -1]),
        stalled=booleans([False, False]),
    )
    record = replace(record, plan=plan, limits=Limits(low=plan.low, high=plan.high))
    for one in (record, Record.from_plain(record.to_plain())):
        first, second = explain(one).scopes
        assert (first.model, first.variants[0].capacity_sentence) == ("first", "5 at once")
        assert (second.model, second.variants[0].capacity_sentence) == ("second", "4 at once")
        assert first.answers[0].details == {"load": 1.0}
    some = record.restricted({"first"}).assessments["load"]
    assert (some.details["fits"].tolist(), some.details["load"].tolist()) == ([5.0], [1.0])


# --- what is expected


def expecting(**columns):
    given = {"ttft": [0.5, 0.25, NAN], "itl": [0.02, 0.03, NAN], "utilization": [0.4, 0.6, NAN], **columns}
    return {"load": Prediction(**{name: floats(column) for name, column in given.items()})}


def with_signals(record, **columns):
    """The record with these signals of its three replicas in place of its own."""
    seen = record.observation
    return replace(record, observation=replace(seen, replicas=ReplicaTable.of(seen.replicas.index, columns)))


def test_what_is_expected_stands_beside_what_was_seen_weighted_by_the_requests_served():
    record = with_signals(
        case(), ttft=[0.1, 0.4, 0.9], itl=[0.01, 0.04, NAN], request_rate=[3.0, 1.0, 1.0], running=[8, 24, 5],
        max_batch=[32, 32, NAN],
    )  # fmt: skip
    cheap, dear = explain(record, expected=expecting()).scopes[0].predictions
    assert (cheap.analyzer, cheap.variant, cheap.replicas) == ("load", "ns/chat-cheap", 3.0)
    assert (cheap.ttft, cheap.itl, cheap.utilization) == (0.5, 0.02, 0.4)
    # (3 x 0.1 + 0.4) / 4, (3 x 0.01 + 0.04) / 4, (8 + 24) / 64
    assert cheap.seen_ttft == pytest.approx(0.175)
    assert cheap.seen_itl == pytest.approx(0.0175)
    assert cheap.seen_utilization == 0.5
    assert (dear.seen_ttft, dear.ttft) == (pytest.approx(0.9), 0.25)
    assert math.isnan(dear.seen_itl)
    assert math.isnan(dear.seen_utilization)


def test_where_a_replica_does_not_say_what_it_serves_all_count_the_same():
    record = with_signals(case(), ttft=[0.1, 0.4, 0.9], request_rate=[3.0, NAN, 1.0])
    assert explain(record, expected=expecting()).scopes[0].predictions[0].seen_ttft == pytest.approx(0.25)


def test_a_variant_the_plan_says_nothing_of_is_expected_at_what_it_started_from():
    (one,) = explain(case(), expected=expecting()).scopes[1].predictions
    assert (one.variant, one.replicas) == ("other/code", case().base[2])
    assert math.isnan(one.ttft)


def test_a_failed_prediction_is_told_in_its_own_words():
    failure = PluginFailure("raised ValueError: no", object="analyzer load", key="predict")
    (one,) = explain(case(), expected={"load": failure}).scopes[1].predictions
    assert one.failure == "analyzer load: predict: raised ValueError: no"


def test_nothing_is_expected_where_nobody_was_asked():
    told = explain(case(), unpredicted="no such plugin")
    assert told.scopes[0].predictions == ()
    assert told.to_plain()["unpredicted"] == "no such plugin"


# --- the command


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture
def records(tmp_path):
    with RecordWriter(tmp_path / "queue", synchronous=True) as writer:
        for cycle in range(4):
            time = 1000.0 + 15 * cycle
            writer.append(case(cycle=42 + cycle, time=time, plan=replace(case().plan, time=time)))
    return tmp_path / "queue"


def test_the_command_shows_the_answer_its_reason_and_its_inputs(records):
    text = run(records, "--model", "chat").output
    assert "Cycle 45 at 1045 s" in text
    assert "chat-cheap  2 → 3 (+1)  a shared limit decides: GPUs (5 of 6 used)" in text
    assert "votes: grow; more required by load; sized by load" in text
    assert "load: 14 requests on 16.0, {nothing} left" in text
    assert "! analyzer late had no say: was late" in text
    assert "other/code" not in text


def test_records_of_plugins_that_are_not_here_are_explained_without_what_they_expect(tmp_path):
    with RecordWriter(tmp_path, synchronous=True) as writer:
        writer.append(case(policy={"analyzers": [{"type": "gone"}], "optimizer": {"type": "stepwise"}}))
    text = run(tmp_path).output
    assert "chat-cheap  2 → 3 (+1)" in text
    assert "! nothing is expected of this plan: " in text
    assert "gone" in text.partition("expected of this plan")[2].partition("\n")[0]


@pytest.mark.parametrize(
    ("at", "cycle"), [("1015", 43), ("1029.9", 43), ("-15", 44), ("-0", 45), ("1970-01-01T00:17:09", 43), ("1e9", 45)]
)
def test_the_moment_is_seconds_a_date_or_counted_from_the_end(records, at, cycle):
    assert json.loads(run(records, "--at", at, "--output", "json").output)["cycle"] == cycle


def test_json_on_the_command_line_is_the_explanation(records):
    assert json.loads(run(records, "--output", "json").output)["scopes"][0]["label"] == "ns/chat"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", "yesterday"], "--at: is not a time (got 'yesterday'); use seconds"),
        (["--at", "nan"], "--at: is not a time (got 'nan')"),
        (["--at", "10"], "holds no record that old"),
        (["--model", "x"], "use one of chat, code"),
    ],
)
def test_what_cannot_be_answered_is_refused(records, arguments, message):
    refusal = run(records, *arguments).exception
    assert isinstance(refusal, RecordError)
    assert message in str(refusal)


def test_a_folder_of_several_records_names_them(records):
    refusal = run(records.parent).exception
    assert str(refusal).endswith("holds no records itself; name one of the folders in it: queue")
