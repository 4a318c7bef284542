"""Rules for every test session of this repository: a skipped test fails it, and properties are reproducible."""

from __future__ import annotations

import hypothesis
import pytest

# Reproducible, and never judged by the clock: the machine may be busy.
hypothesis.settings.register_profile("repository", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repository")


def _skips(config: pytest.Config) -> list[object]:
    """Reports of skipped tests and modules; empty on the workers of pytest-xdist, whose controller has them all."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return [] if reporter is None else list(reporter.stats.get("skipped", []))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a session that passed by leaving something out."""
    if session.exitstatus == pytest.ExitCode.OK and _skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say why a session without failures failed."""
    if skips := _skips(config):
        terminalreporter.write_line(f"{len(skips)} skipped: here a skipped test is a failed one", red=True)
