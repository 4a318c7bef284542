"""Metrics and log of an engine in service over a simulated world, and the page that explains them."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from wva_actuators.prometheus_gauge.exposition import ALIASES, CHANGE_LABELS, INSTANCE_LABEL, LABELS
from wva_core import app
from wva_core.engine.brain import Brain
from wva_core.engine.loop import Engine
from wva_core.errors import PolicyError
from wva_core.hooks import Runtime
from wva_core.simulation.scenario import read_scenario
from wva_core.simulation.world import World
from wva_core.telemetry import names
from wva_core.telemetry.names import ErrorType, Event

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/user-guide/metrics.md").read_text(encoding="utf-8")


def rows(heading):
    """The cells of every row of the table whose first column has this heading."""
    found = []
    for table in re.findall(rf"^\| {heading} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE):
        found += [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    return found


def code(cell):
    """What a cell has in code."""
    return re.findall(r"`([^`]+)`", cell)


METRIC_ROWS = [row for row in rows("metric") if len(row) == 4]


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def engine(registry):
    """An engine that advises on a fleet without enough KV cache; its policy is refused in the second cycle."""
    scenario = read_scenario(ROOT / "examples/scenarios/kv-ladder.yaml", only=("saturation-v1",))
    (contender,) = scenario.contenders
    world = World(scenario, contender)
    made = Engine(
        Runtime(world.clock, registry, {"simulation": world}),
        Brain.build(app.contender_layers(scenario, contender)),
        (app.entry("collectors", "simulation"),),
        (app.entry("actuators", "prometheus-gauge"),),
    )

    def policy():
        if made.memory.cycle == 1:
            raise PolicyError("is not a share", object="policy.yaml", key="a", value=2, remedy="give 0 to 1")

    made.policy_source = policy
    made.start()
    for second in range(0, 61, 15):
        world.cluster.advance(float(second))
        world.clock.time = float(second)
        world.scraper.sample()
    yield made
    made.stop()


@pytest.fixture
def in_service(engine, registry, capsys):
    """The engine after two cycles, wired as the page shows it: samples of a scrape, and lines of the log."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    scope = {"engine": engine, "registry": registry}
    before = structlog.get_config()
    try:
        exec(example.replace("8080", "0"), scope)
        scope["run_cycle"]()
        scope["run_cycle"]()
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://127.0.0.1:{scope['server'].server_port}/metrics") as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
    finally:
        structlog.configure(**before)
        if "server" in scope:
            scope["server"].shutdown()
            scope["server"].server_close()
    return families, [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_an_engine_in_service_tells_of_itself(in_service):
    families, lines = in_service
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples
    }
    assert values["wva_optimization_duration_seconds_count", "success"] == 2
    assert values["wva_models_processed",] == 1
    assert values["wva_last_cycle_timestamp_seconds",] == 60
    assert values["wva_policy_refused_total",] == 1
    assert values["wva_errors_total", "controller", "policy refused"] == 1
    assert values["wva_optimizer_active", "stepwise"] == 1
    assert values["wva_plugin_duration_seconds_count", "analyzer", "saturation-v1"] == 2
    (desired,) = (value for key, value in values.items() if key[0] == "wva_desired_replicas")
    assert [line["event"] for line in lines] == [
        "policy_changed",
        "analyzer-result",
        "scaling-decision",
        "decision_changed",
        "policy_refused",
    ]
    assert lines[1]["scaleUpThreshold"] == 0.85  # the project's threshold
    assert lines[2]["decisions"][0]["tgt"] == lines[3]["desired"] == desired


# ---- the page


def test_every_published_metric_is_on_the_page_with_its_type_and_labels(in_service):
    families, _ = in_service
    page = {code(row[0])[0]: (row[1], set(code(row[2]))) for row in METRIC_ROWS}
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if name in ALIASES.values() or name.endswith("_created"):
            continue
        kind, labels = page[name]
        assert kind == family.type, name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels, name


def test_the_page_has_the_names_of_the_code_and_no_others():
    assert sorted(code(row[0])[0] for row in METRIC_ROWS) == sorted((*ALIASES, *names.METRICS))
    assert {code(row[0])[0]: code(row[1])[0] for row in rows("metric") if len(row) == 2} == {
        alias: name for name, alias in ALIASES.items()
    }


def test_the_labels_on_the_page_are_those_of_the_code():
    ours = {value for name, value in vars(names).items() if name.startswith("LABEL_")}
    theirs = {*LABELS, *CHANGE_LABELS, INSTANCE_LABEL}
    in_tables = {label for row in METRIC_ROWS for label in code(row[2])}
    assert in_tables | {names.LABEL_CONTROLLER_INSTANCE} == ours | theirs
    assert names.LABEL_CONTROLLER_INSTANCE == INSTANCE_LABEL
    assert f"`{INSTANCE_LABEL}`" in PAGE


def test_every_error_type_is_on_the_page():
    assert [code(row[0])[0] for row in rows("`error_type`")] == list(ErrorType)


def test_every_log_event_is_on_the_page():
    assert [code(row[0])[0] for row in rows("event")] == list(Event)


def test_the_lines_that_are_written_have_the_level_and_fields_on_the_page(in_service):
    _, lines = in_service
    page = {code(row[0])[0]: (row[1], set(code(row[3]))) for row in rows("event")}
    for line in lines:
        level, fields = page[line["event"]]
        assert level.startswith(line["level"])
        assert set(line) - {"event", "level", "timestamp", "cycle", "time"} == fields - {"limit"}, line["event"]
    decision = next(line for line in lines if line["event"] == Event.SCALING_DECISION)
    result = next(line for line in lines if line["event"] == Event.ANALYZER_RESULT)
    for named in (*decision["decisions"][0], *result["variants"][0]):
        assert f"`{named}`" in PAGE


def test_queries_on_the_page_ask_for_metrics_that_exist():
    known = {code(row[0])[0] for row in METRIC_ROWS}
    for _, query in rows("question"):
        asked = set(re.findall(r"wva_\w+", query))
        assert asked
        assert asked <= known


def test_the_buckets_on_the_page_are_those_of_the_code():
    shown = re.search(r"buckets ([\d., ]+) and (\d+) s", PAGE)
    assert shown is not None
    assert tuple(float(bound) for bound in (*shown[1].split(", "), shown[2])) == names.DURATION_BUCKETS
