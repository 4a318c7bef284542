"""
The pytest plugin of the project: assertions of the conformance kit show their values, and a run says what it tests.
"""

from __future__ import annotations

import pytest

from wva_core import __version__

__all__ = ["pytest_report_header"]

pytest.register_assert_rewrite("wva_core.testing.conformance")


def pytest_report_header() -> str:
    """The release whose conformance kit is used."""
    return f"wva-core: {__version__}"
