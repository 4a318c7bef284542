"""The table of profiles, and the simulated engine against the closed-loop formula the rows were fitted with."""

from __future__ import annotations

import dataclasses
import math

import pytest

from wva_core.errors import ParameterError, ScenarioError
from wva_core.simulation.profiles import (
    ServerProfile,
    closed_loop_seconds_per_token,
    load_accelerator,
    load_profile,
)
from wva_core.simulation.validation import validate_profile

MEASURED = [
    ("Qwen/Qwen3-32B", "H100-80GB", 2, "vllm", "bf16"),
    ("Qwen/Qwen3-32B", "H100-80GB", 4, "vllm", "bf16"),
    ("meta-llama/Llama-3.1-70B", "H100-80GB", 4, "vllm", "fp8"),
    ("meta-llama/Llama-3.1-70B", "H200", 1, "vllm", "fp8"),
    ("meta-llama/Llama-3.1-70B", "H200", 2, "vllm", "fp8"),
    ("meta-llama/Llama-3.1-8B-Instruct", "H100-80GB", 1, "trtllm", "bf16"),
    ("openai/gpt-oss-120b", "H100-80GB", 2, "vllm", "fp4"),
    ("openai/gpt-oss-120b", "H200", 1, "vllm", "fp4"),
]


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: "-".join(map(str, row)))
@pytest.mark.parametrize("shape", [(1024, 1024), (1024, 256), (128, 512)], ids=lambda shape: "x".join(map(str, shape)))
def test_closed_loop_meets_the_formula_within_five_percent(row, shape):
    model, accelerator, tp, engine, precision = row
    profile = load_profile(model, accelerator, tp, engine, "measured", precision=precision)
    rows = validate_profile(profile, input_tokens=shape[0], output_tokens=shape[1])
    assert [line.batch for line in rows] == [1, 8, 32, 64]
    print(f"\n{profile.label}: the row's own fit error is {profile.mape:.1%}")  # noqa: T201 - the report
    for line in rows:
        print(f"  batch {line.batch:3d}  formula {line.predicted_s * 1e3:7.3f} ms  simulated {line.error:+.2%}")  # noqa: T201
        assert abs(line.error) < 0.05


def test_closed_loop_formula_by_hand():
    # base 10 ms + 0.1 ms x 4 + 1 ms x 4 x (100 + 50/2)/1000 + 0.05 ms x 4 x 100/50 = 10 + 0.4 + 0.5 + 0.4 ms
    profile = ServerProfile(0.010, 0.0001, 0.001, 0.00005, max_batch=8, kv_capacity_tokens=10_000)
    assert closed_loop_seconds_per_token(profile, 4, 100, 50) == pytest.approx(0.0113)


def test_validation_leaves_out_batches_that_would_queue():
    profile = load_profile("meta-llama/Llama-3.1-8B-Instruct", "L4", 1)  # a cache of 15,000 tokens
    assert [line.batch for line in validate_profile(profile)] == [1, 8]
    small = dataclasses.replace(profile, max_batch=4, kv_capacity_tokens=10**6)
    assert [line.batch for line in validate_profile(small)] == [1]


def test_profile_is_in_seconds_and_prefers_vllm_measured():
    profile = load_profile("qwen/qwen3-32b", "h100-80gb", 2)
    assert (profile.engine, profile.kind, profile.precision) == ("vllm", "measured", "bf16")
    assert profile.base_s == pytest.approx(0.013498)
    assert profile.per_1k_kv_s == pytest.approx(0.0000687)
    assert profile.mape == pytest.approx(0.029)
    assert (profile.max_batch, profile.kv_capacity_tokens) == (128, 272_000)


def test_profile_without_a_fit_error_has_none():
    assert math.isnan(load_profile("meta-llama/Llama-3.1-8B-Instruct", "A100-80GB", 1).mape)


def test_unknown_profile_names_near_rows():
    with pytest.raises(ScenarioError) as caught:
        load_profile("llama-3.1-70b", "H100", 2)
    text = str(caught.value)
    assert text.startswith("profile: model=llama-3.1-70b, accelerator=H100, tp=2: is not in the table of profiles; ")
    assert "meta-llama/Llama-3.1-70B H100-80GB TP 2 (fp8, vllm, measured)" in text


def test_profile_without_step_times_is_refused():
    with pytest.raises(ScenarioError, match="has no four-term step times"):
        load_profile("meta-llama/Llama-3.1-8B-Instruct", "A100-80GB", 1, kind="measured")


def test_ambiguous_precision_is_refused():
    with pytest.raises(ScenarioError, match=r"say which precision: .*fp4.*fp8"):
        load_profile("meta-llama/Llama-3.1-70B", "B200", 2)


def test_every_row_with_step_times_simulates():
    from wva_core.simulation.profiles import _table

    for row in _table("profiles.csv"):
        if row["iter_base_ms"] and row["kv_capacity_tokens"]:
            profile = load_profile(
                row["model"], row["accelerator"], int(row["tp"]), row["engine"], row["kind"], precision=row["precision"]
            )
            assert validate_profile(profile, batches=(1,), rounds=1)[0].error == pytest.approx(0, abs=0.05)


def test_accelerator_has_prices():
    accelerator = load_accelerator("h100-80gb")
    assert (accelerator.price_usd_per_h, accelerator.price_low_usd_per_h) == (6.88, 1.99)
    assert math.isnan(load_accelerator("B200").price_low_usd_per_h)


def test_unknown_accelerator_names_those_there_are():
    with pytest.raises(ScenarioError, match="choose one of L4, L40S"):
        load_accelerator("H1000")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"base_s": -1.0}, "base_s"),
        ({"base_s": 0.0, "per_seq_s": 0.0}, "base_s"),
        ({"per_prefill_token_s": math.nan}, "per_prefill_token_s"),
        ({"max_batch": 0}, "max_batch"),
        ({"kv_capacity_tokens": 0}, "kv_capacity_tokens"),
        ({"max_batched_tokens": 3}, "max_batched_tokens"),
    ],
)
def test_impossible_profile_is_refused(changes, key):
    good = ServerProfile(0.01, 0.0, 0.0, 0.0, max_batch=4, kv_capacity_tokens=100)
    with pytest.raises(ParameterError) as caught:
        dataclasses.replace(good, **changes)
    assert caught.value.key == key
