"""`wva simulate` from the outside: what it prints, writes and refuses, and what Ctrl-C leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tests.integration.conftest import EXAMPLES
from wva_core import app
from wva_core.cli import main
from wva_core.errors import EnvironmentFault
from wva_core.simulation.scenario import read_scenario
from wva_core.telemetry.record_reader import RecordReader

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
SMALL = {
    "name": "small",
    "warmupSeconds": 60,
    "objectives": {"ttftSeconds": 5.0, "tpotSeconds": 0.15},
    "models": [
        {
            "model": LLAMA,
            "arrivals": {"law": "poisson", "rate": 1.0, "durationSeconds": 300, "outputTokens": 100},
            "variants": [
                {
                    "name": "a",
                    "profile": {"accelerator": "L4", "kind": "derived"},
                    "maxReplicas": 6,
                    "initialReplicas": 3,
                }
            ],
        }
    ],
    "contenders": [
        {"name": "WVA alone", "wva": {"profile": "saturation-v1"}},
        {"name": "static", "static": {"replicas": 3}},
    ],
}


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    return path


@pytest.fixture
def wva(monkeypatch, tmp_path):
    """Runs `wva simulate ARGUMENTS` in a folder of its own."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, ["simulate", *map(str, arguments)])


def report_in(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def cycles_in(folder):
    return [record.time for record in RecordReader(folder).read()]


# --------------------------------------------------------------------------------------------------------------------
# What it does


def test_report_page_and_records_are_written_and_named(wva, scenario, tmp_path):
    out = tmp_path / "out"
    result = wva(scenario, "--out", out)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["records", "report.html", "report.json"]
    assert [path.name for path in (out / "records").iterdir()] == ["WVA-alone"]
    assert cycles_in(out / "records" / "WVA-alone") == [15.0 * cycle for cycle in range(21)]
    lines = result.stdout.splitlines()
    assert lines[0].startswith("small: ")
    assert lines[0].endswith("2 contenders, seed 1")
    assert f"report: {out / 'report.html'}" in lines
    assert f"data:   {out / 'report.json'}" in lines
    assert any(line.startswith(f"cycles: {out / 'records' / 'WVA-alone'} (try: wva explain ") for line in lines)
    document = report_in(out)
    assert document["partial"] is False
    assert [contender["name"] for contender in document["contenders"]] == ["WVA alone", "static"]


def test_table_comes_after_the_validation_of_the_simulator(wva, scenario):
    text = wva(scenario).stdout
    validation, table = text.index("simulator against the closed-loop formula"), text.index("Contender")
    assert validation < table
    assert "A request attains its objectives if" in text


def test_only_runs_the_named_contenders(wva, scenario, tmp_path):
    assert wva(scenario, "--only", "static").exit_code == 0
    assert [contender["name"] for contender in report_in(tmp_path / "wva-report")["contenders"]] == ["static"]
    assert not (tmp_path / "wva-report" / "records").exists()


def test_seed_changes_what_is_drawn(wva, scenario, tmp_path):
    for seed in (1, 2):
        assert wva(scenario, "--seed", seed, "--out", tmp_path / str(seed)).exit_code == 0
    one, two = report_in(tmp_path / "1"), report_in(tmp_path / "2")
    assert (one["scenario"]["seed"], two["scenario"]["seed"]) == (1, 2)
    assert one["contenders"][1]["series"]["demand_rps"] != two["contenders"][1]["series"]["demand_rps"]


def test_trace_takes_the_place_of_the_traffic(wva, scenario, tmp_path):
    trace = tmp_path / "mine.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n" + "".join(f"{second},10,10\n" for second in range(100)))
    assert wva(scenario, "--trace", trace).exit_code == 0
    facts = report_in(tmp_path / "wva-report")["scenario"]["trace"]
    assert (facts["name"], facts["kind"], facts["requests"], facts["span_s"]) == ("mine", "recorded", 100, 100)


def test_json_output_is_the_report_and_nothing_else(wva, scenario, tmp_path):
    result = wva(scenario, "--output", "json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert printed == report_in(tmp_path / "wva-report")
    assert "simulator against the closed-loop formula" in result.stderr


NOISY = """
import os
from wva_core.domain import Allocation
from wva_core.hooks import hookimpl

class Plugin:
    api = "1"

    def __init__(self, parameters):
        pass

    @hookimpl
    def allocate(self, observation, limits):
        os.write(1, b"a solver speaks\\n")
        return Allocation(limits.low.clip(1))
"""


def test_what_a_solver_prints_past_python_is_not_in_the_json(tmp_path):
    site = tmp_path / "site"
    (site / "wva_noisy").mkdir(parents=True)
    (site / "wva_noisy/__init__.py").write_text(NOISY)
    info = site / "wva_noisy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wva-noisy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[wva.optimizers]\nnoisy = wva_noisy:Plugin\n")
    policy = {"analyzers": [{"type": "saturation-v1"}], "optimizer": {"type": "noisy"}}
    path = tmp_path / "noisy.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "contenders": [{"name": "noisy", "wva": {"policy": policy}}]}))
    done = subprocess.run(
        [sys.executable, "-c", "from wva_core.cli import main; main()", "simulate", path, "--output", "json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert json.loads(done.stdout)["contenders"][0]["name"] == "noisy"
    assert "a solver speaks" in done.stderr


def test_words_in_brackets_are_printed_as_they_are(wva, tmp_path):
    document = {**SMALL, "name": "[red]x[/red]", "contenders": [{"name": "[bold] one", "static": {"replicas": 3}}]}
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    result = wva(path)
    assert result.exit_code == 0, result.output
    assert "[red]x[/red]: " in result.stdout
    assert "[bold] one" in result.stdout


def test_warning_of_the_scenario_is_printed(wva, tmp_path):
    ramp = {"law": "ramp", "rate": 0.5, "endRate": 8.0, "durationSeconds": 600}
    document = {**SMALL, "models": [{**SMALL["models"][0], "arrivals": ramp}]}
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    result = wva(path, "--only", "static")
    assert result.exit_code == 0, result.output
    assert "warning: model default/" in result.stdout


# --------------------------------------------------------------------------------------------------------------------
# An output folder that is there already


def test_second_run_replaces_the_records_of_the_first(wva, scenario, tmp_path):
    folder = tmp_path / "wva-report" / "records" / "WVA-alone"
    assert wva(scenario).exit_code == 0
    first = cycles_in(folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "observations" / "notes.jsonl").write_text("mine")
    assert wva(scenario, "--seed", 2).exit_code == 0
    assert cycles_in(folder) == first
    assert all(cycle.is_identical for cycle in app.replay_records(folder))
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "observations" / "notes.jsonl").read_text() == "mine"


def test_records_of_contenders_that_do_not_run_are_left_alone(wva, scenario, tmp_path):
    folder = tmp_path / "wva-report" / "records" / "WVA-alone"
    assert wva(scenario).exit_code == 0
    first = cycles_in(folder)
    result = wva(scenario, "--only", "static")
    assert cycles_in(folder) == first
    assert "cycles:" not in result.stdout  # they are not of this run


def test_only_segments_are_cleared(tmp_path):
    kept = [tmp_path / "observations" / name for name in ("a.jsonl", "00000000.txt", ".hidden")]
    gone = [tmp_path / ring / f"00000000{end}" for ring in ("observations", "decisions") for end in (".bin", ".jsonl")]
    folder = tmp_path / "observations" / "00000001.bin"  # named like a segment, but a folder
    folder.mkdir(parents=True)
    (tmp_path / "decisions").mkdir()
    for path in (*kept, *gone):
        path.write_text("x")
    app.clear_records(tmp_path)
    assert all(path.exists() for path in (*kept, folder))
    assert not any(path.exists() for path in gone)


def test_folder_that_cannot_be_made_is_said_before_anything_runs(wva, scenario, tmp_path):
    (tmp_path / "file").write_text("")
    result = wva(scenario, "--out", tmp_path / "file" / "out")
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: {tmp_path / 'file' / 'out'}: cannot be made: Not a directory; choose another folder with --out\n"
    )
    assert result.stdout == ""


def test_fault_of_the_environment_names_the_record(monkeypatch, tmp_path):
    # a folder in which nothing can be removed, whoever runs the tests
    record = tmp_path / "observations" / "00000000.bin"
    record.parent.mkdir()
    record.write_text("x")

    def refuse(_path, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(EnvironmentFault) as caught:
        app.clear_records(tmp_path)
    assert str(caught.value) == (
        f"{record}: is a record of an earlier run and cannot be removed: Permission denied; remove it, or choose"
        " another folder with --out"
    )


# --------------------------------------------------------------------------------------------------------------------
# Bad input: exit code 2, one line, nothing written


def changed(**top):
    return {**SMALL, **top}


BAD = {
    "unknown key": (changed(warmUp=3), "error: small.yaml: warmUp: is not a known key (got 3); did you mean"),
    "policy of the last contender": (
        changed(
            contenders=[*SMALL["contenders"], {"name": "late", "wva": {"policy": {"analyzers": [{"type": "nope"}]}}}]
        ),
        "error: ",
    ),
    "profile that is none": (
        changed(contenders=[SMALL["contenders"][1], {"name": "w", "wva": {"profile": "saturation-v9"}}]),
        (
            "error: small.yaml: contender w: profile: is not a profile (got 'saturation-v9');"
            " give one of inferno, saturation-v1, slo"
        ),
    ),
    "demand nobody can serve": (
        changed(models=[{**SMALL["models"][0], "arrivals": {"law": "poisson", "rate": 50.0, "durationSeconds": 300}}]),
        f"error: small.yaml: model default/{LLAMA}: needs ",
    ),
}


@pytest.mark.parametrize(("document", "begins"), BAD.values(), ids=BAD)
def test_bad_scenario_is_refused_in_one_line_and_nothing_is_written(wva, tmp_path, document, begins):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    result = wva("small.yaml", "--out", "out")
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(begins)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_malformed_trace_is_refused_and_nothing_runs(wva, scenario, tmp_path):
    (tmp_path / "t.csv").write_text("arrival_s,input_tokens,output_tokens\n0,10,10\n1,10,none\n")
    result = wva(scenario, "--trace", "t.csv", "--out", "out")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: t.csv: line 3, column output_tokens: is not a number (got 'none'); write a plain decimal number\n"
    )
    assert not (tmp_path / "out").exists()


def test_unknown_contender_is_refused(wva, scenario, tmp_path):
    result = wva(scenario, "--only", "statick", "--out", "out")
    assert result.exit_code == 2
    assert "--only: is not a contender of this scenario (got 'statick'); did you mean 'static'?" in result.stderr
    assert not (tmp_path / "out").exists()


def test_records_of_an_earlier_run_survive_a_refused_one(wva, scenario, tmp_path):
    assert wva(scenario).exit_code == 0
    before = cycles_in(tmp_path / "wva-report" / "records" / "WVA-alone")
    assert wva(scenario, "--only", "nobody").exit_code == 2
    assert cycles_in(tmp_path / "wva-report" / "records" / "WVA-alone") == before


# --------------------------------------------------------------------------------------------------------------------
# Ctrl-C


def wait_until(condition, process, timeout=60.0):
    """Waits for something that is observed; the process must live meanwhile."""
    end = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@pytest.mark.parametrize("output", ["text", "json"])
def test_interrupt_leaves_a_report_that_is_marked_partial(tmp_path, output):
    # A month of the ladder: minutes of work, of which a second is enough.
    document = yaml.safe_load((EXAMPLES / "kv-ladder.yaml").read_text(encoding="utf-8"))
    document["durationSeconds"] = 30 * 86_400
    document["contenders"] = [
        {"name": "short", "static": {"replicas": 1}},
        *document["contenders"],
        {"name": "never reached", "static": {"replicas": 1}},
    ]
    document["scrapeSeconds"] = 300  # the static fleet before it goes by quickly
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    process = subprocess.Popen(
        [Path(sys.executable).with_name("wva"), "simulate", "long.yaml", "--out", "out", "--output", output],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    records = tmp_path / "out" / "records" / "saturation-v1" / "observations"
    try:
        wait_until(lambda: any(path.stat().st_size > 10_000 for path in records.glob("*.jsonl")), process)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "interrupted: the report is partial, 1 of 3 contenders went through"
    assert "Traceback" not in stderr
    report = report_in(tmp_path / "out")
    assert report["partial"] is True
    assert [(one["name"], one["partial"]) for one in report["contenders"]] == [
        ("short", False),
        ("saturation-v1", True),
    ]
    assert (tmp_path / "out" / "report.html").exists()
    written = report["contenders"][1]["series"]
    assert written["time_s"][-1] < 30 * 86_400
    assert written["variants"]["default/ladder"]["desired_replicas"][0] == 1
    if output == "json":
        assert json.loads(stdout) == report
    # every cycle up to the interrupt is on disk, whole
    times = cycles_in(records.parent)
    assert times == [15.0 * cycle for cycle in range(len(times))]


def test_interrupt_at_the_first_instant_still_gives_a_result(scenario, tmp_path):
    def interrupt(_name, _time):
        raise KeyboardInterrupt

    (result,) = app.run_scenario(read_scenario(scenario), records=tmp_path, progress=interrupt)
    assert (result.name, result.partial, result.requests_in, result.cost_usd) == ("WVA alone", True, 0, 0.0)
    assert result.series.time_s.tolist() == [0.0]


def test_second_interrupt_ends_at_once(capsys):
    from wva_core.cli.simulate import _Interrupts

    with _Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        with pytest.raises(SystemExit) as caught:
            signal.raise_signal(signal.SIGINT)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted twice: no report is written\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
