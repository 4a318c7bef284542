"""Where log lines go and what they look like."""

from __future__ import annotations

import io
import json

import pytest
import structlog

from wva_core.errors import ParameterError
from wva_core.telemetry.log_output import LEVELS, configure_logging
from wva_core.telemetry.names import Event


@pytest.fixture(autouse=True)
def as_it_was():
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def lines(level="info", *, as_json, write):
    stream = io.StringIO()
    configure_logging(level, as_json=as_json, stream=stream)
    write(structlog.get_logger())
    return stream.getvalue().splitlines()


def test_a_json_line_holds_event_level_time_and_fields():
    (line,) = lines(as_json=True, write=lambda log: log.info(Event.DECISION_CHANGED, variant="ns/v", desired=3))
    written = json.loads(line)
    assert written.pop("timestamp").endswith("Z")
    assert written == {"event": "decision_changed", "level": "info", "variant": "ns/v", "desired": 3}


def test_an_exception_stays_on_its_json_line():
    def write(log):
        try:
            int("no")
        except ValueError as exc:
            log.warning("plugin_failed", exc_info=exc)

    (line,) = lines(as_json=True, write=write)
    assert json.loads(line)["exception"].endswith("with base 10: 'no'")


def test_a_line_for_people_has_no_colours_where_nobody_looks():
    (line,) = lines(as_json=False, write=lambda log: log.info("decision_changed", variant="ns/v"))
    assert "decision_changed" in line
    assert "variant=ns/v" in line
    assert "\x1b" not in line


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_below_the_level_is_written(level):
    def write(log):
        for name in LEVELS:
            getattr(log, name)("event")

    written = lines(level, as_json=True, write=write)
    assert [json.loads(line)["level"] for line in written] == list(LEVELS)[list(LEVELS).index(level) :]


def test_a_level_that_is_none_is_refused():
    with pytest.raises(ParameterError) as refused:
        configure_logging("loud")
    assert str(refused.value) == ("logging: level: is not a level (got 'loud'); use one of debug, info, warning, error")


def test_a_second_call_takes_effect_for_loggers_that_exist():
    first, second = io.StringIO(), io.StringIO()
    configure_logging("info", as_json=True, stream=first)
    log = structlog.get_logger()
    log.info("one")
    configure_logging("warning", as_json=True, stream=second)
    log.info("two")
    log.warning("three")
    assert "one" in first.getvalue()
    assert [json.loads(line)["event"] for line in second.getvalue().splitlines()] == ["three"]
