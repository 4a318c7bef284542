"""Reading traces and naming their faults; synthetic arrivals against their laws; scaling of rates."""

from __future__ import annotations

import gzip
import math

import numpy as np
import pytest

from wva_core.errors import ParameterError, TraceError
from wva_core.simulation.workload import (
    Trace,
    gamma,
    piecewise,
    poisson,
    ramp,
    read_trace,
    scale_rate,
    spike,
    superpose,
    thin,
)

HEADER = "arrival_s,input_tokens,output_tokens\n"


def write(tmp_path, text, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_trace_is_read_plain_and_gzipped(tmp_path, name):
    trace = read_trace(write(tmp_path, HEADER + "0.5,10,1\n0.5,0,2\n1e1,3,4\n", name))
    assert trace.arrival_s.tolist() == [0.5, 0.5, 10.0]
    assert trace.input_tokens.tolist() == [10, 0, 3]
    assert trace.output_tokens.tolist() == [1, 2, 4]
    assert (trace.name, trace.kind, trace.duration_s) == ("t", "recorded", 10.0)
    assert trace.input_tokens.dtype == np.int64


def test_columns_are_found_by_name_and_others_ignored(tmp_path):
    text = "model,output_tokens,arrival_s,input_tokens\nx,3,1.5,7\n"
    trace = read_trace(write(tmp_path, text), name="mine", kind="realised")
    assert (trace.arrival_s[0], trace.input_tokens[0], trace.output_tokens[0]) == (1.5, 7, 3)
    assert (trace.name, trace.kind) == ("mine", "realised")


def test_quoted_cells_blank_lines_and_windows_line_ends_are_fine(tmp_path):
    trace = read_trace(write(tmp_path, 'arrival_s,input_tokens,output_tokens\r\n"1.0",2,3\r\n\r\n2.0,2,3\r\n'))
    assert trace.arrival_s.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("body", "line", "column", "problem"),
    [
        ("1,2,3\nx,2,3\n", 3, "arrival_s", "is not a number"),
        ("1,2,3\n2,,3\n", 3, "input_tokens", "is not a number"),
        ("1,2,3\n2,nan,3\n", 3, "input_tokens", "is not a finite number"),
        ("1,2,3\ninf,2,3\n", 3, "arrival_s", "is not a finite number"),
        ("-1,2,3\n", 2, "arrival_s", "is negative"),
        ("1,-2,3\n", 2, "input_tokens", "is negative"),
        ("1,2,3\n0.5,2,3\n", 3, "arrival_s", "is before the row above, at 1 s"),
        ("1,2,3\n2,2\n", 3, "output_tokens", "has 2 columns, the first line names 3"),
        ("1,2,3\n2,2,3,4\n", 3, "", "has 4 columns, the first line names 3"),
        ("1,2,3,4\n2,2,3,4\n", 2, "", "has 4 columns, the first line names 3"),
        ("1,2,0\n", 2, "output_tokens", "an answer has at least one token"),
        ("1,2.5,3\n", 2, "input_tokens", "is not a whole number of tokens"),
        ("1,2,1e300\n", 2, "output_tokens", "is not a whole number of tokens"),
    ],
)
def test_malformed_row_names_line_and_column(tmp_path, body, line, column, problem):
    path = write(tmp_path, HEADER + body)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert problem in str(caught.value)
    assert str(caught.value).startswith(f"{path}: line {line}")
    assert caught.value.remedy


def test_error_is_one_line_with_value_and_remedy(tmp_path):
    path = write(tmp_path, HEADER + "1,2,3\n0.5,2,3\n")
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    assert str(caught.value) == (
        f"{path}: line 3, column arrival_s: is before the row above, at 1 s (got '0.5'); sort the rows by arrival"
    )


def test_missing_column_is_named(tmp_path):
    with pytest.raises(TraceError) as caught:
        read_trace(write(tmp_path, "arrival_s,input_tokens\n1,2\n"))
    assert (caught.value.line, caught.value.column) == (1, "output_tokens")


@pytest.mark.parametrize("text", ["", HEADER, HEADER + "\n"])
def test_trace_without_rows_is_refused(tmp_path, text):
    with pytest.raises(TraceError):
        read_trace(write(tmp_path, text))


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(tmp_path / "absent.csv")
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(gzip.compress(HEADER.encode())[:-12])
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(broken)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraceError, match="not text in UTF-8"):
        read_trace(binary)


def test_trace_is_read_only_and_checked():
    trace = Trace(np.array([1.0]), np.array([2]), np.array([3]))
    with pytest.raises(ValueError, match="read-only"):
        trace.arrival_s[0] = 5.0
    for columns in (([2.0, 1.0], [1, 1], [1, 1]), ([1.0], [-1], [1]), ([1.0], [1], [0]), ([1.0], [1, 2], [1])):
        with pytest.raises(ParameterError):
            Trace(*map(np.array, columns))


# Tolerances: four standard errors of the statistic at the sample sizes used.


def test_poisson_has_its_rate_and_exponential_gaps():
    trace = poisson(1, 5.0, 10_000.0, (100, 20))
    gaps = np.diff(trace.arrival_s)
    assert len(trace) == pytest.approx(50_000, abs=4 * math.sqrt(50_000))
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=4 / math.sqrt(50_000))
    assert set(trace.input_tokens) == {100}
    assert set(trace.output_tokens) == {20}


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_gamma_has_its_rate_and_coefficient_of_variation(cv):
    trace = gamma(2, 5.0, cv, 20_000.0, (100, 20))
    gaps = np.diff(trace.arrival_s)
    assert len(trace) == pytest.approx(100_000, abs=4 * cv * math.sqrt(100_000))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)
    assert trace.arrival_s[-1] < 20_000.0


def test_ramp_rises_in_a_straight_line():
    trace = ramp(3, 2.0, 10.0, 10_000.0, (100, 20))
    counts, _ = np.histogram(trace.arrival_s, bins=4, range=(0, 10_000))
    expected = np.array([3.0, 5.0, 7.0, 9.0]) * 2500
    np.testing.assert_allclose(counts, expected, atol=4 * np.sqrt(expected).max())


def test_spike_has_its_place_height_and_length():
    trace = spike(4, 1.0, 20.0, 1000.0, 500.0, 4000.0, (100, 20))
    counts, _ = np.histogram(trace.arrival_s, bins=[0, 1000, 1500, 4000])
    expected = np.array([1000.0, 10_000.0, 2500.0])
    np.testing.assert_allclose(counts, expected, atol=4 * np.sqrt(expected).max())


def test_silence_in_a_rate_series_stays_silent():
    trace = piecewise(5, [0.0, 100.0, 100.0, 200.0, 200.0, 300.0], [5.0, 5.0, 0.0, 0.0, 5.0, 5.0], (1, 1))
    assert not ((trace.arrival_s > 100.0) & (trace.arrival_s < 200.0)).any()
    assert (np.diff(trace.arrival_s) >= 0).all()


def test_lengths_are_drawn_in_pairs_from_another_trace():
    source = Trace(np.arange(3.0), np.array([10, 20, 30]), np.array([1, 2, 3]))
    trace = poisson(6, 10.0, 100.0, source)
    assert (trace.input_tokens == 10 * trace.output_tokens).all()
    assert set(trace.output_tokens) == {1, 2, 3}


def test_same_seed_same_trace():
    one, two, other = (poisson(seed, 3.0, 100.0, (5, 5)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.arrival_s, two.arrival_s)
    assert one.arrival_s.tolist() != other.arrival_s.tolist()


def test_superposition_keeps_duration_and_multiplies_every_request():
    trace = poisson(7, 2.0, 1000.0, (5, 5))
    tripled = superpose(trace, 3, shift_s=10.0)
    assert len(tripled) == 3 * len(trace)
    assert tripled.duration_s == trace.duration_s
    assert np.isin(trace.arrival_s, tripled.arrival_s).all()
    assert superpose(trace, 1).arrival_s.tolist() == trace.arrival_s.tolist()


def test_superposed_record_is_no_record_any_more():
    recorded = Trace(np.array([0.0, 1.0]), np.array([1, 1]), np.array([1, 1]), kind="recorded")
    assert superpose(recorded, 2).kind == "realised"
    assert thin(recorded, 1.0, seed=1).kind == "recorded"


def test_thinning_keeps_a_share_of_the_rows_as_they_were():
    trace = poisson(8, 20.0, 1000.0, (5, 5))
    thinned = thin(trace, 0.25, seed=1)
    assert len(thinned) == pytest.approx(0.25 * len(trace), abs=4 * math.sqrt(len(trace) * 0.25 * 0.75))
    assert np.isin(thinned.arrival_s, trace.arrival_s).all()


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5])
def test_scaling_reaches_the_rate(factor):
    trace = poisson(9, 20.0, 1000.0, (5, 5))
    scaled = scale_rate(trace, factor, seed=1)
    assert len(scaled) == pytest.approx(factor * len(trace), rel=0.03)
    assert scaled.duration_s == pytest.approx(trace.duration_s, rel=0.01)  # time is not compressed


@pytest.mark.parametrize(
    "call",
    [
        lambda t: superpose(t, 0),
        lambda t: thin(t, 1.5, seed=1),
        lambda t: scale_rate(t, 0.0, seed=1),
        lambda t: gamma(1, 0.0, 1.0, 10.0, (1, 1)),
        lambda t: piecewise(1, [0.0], [1.0], (1, 1)),
        lambda t: piecewise(1, [0.0, 1.0], [1.0, -1.0], (1, 1)),
        lambda t: poisson(1, 5.0, 10.0, t.until(0.0)),
    ],
)
def test_impossible_arguments_are_refused(call):
    with pytest.raises(ParameterError):
        call(Trace(np.array([1.0]), np.array([1]), np.array([1])))
