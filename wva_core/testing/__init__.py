"""
What tests of plugins are made of: builders, samples, and the conformance kit.

A name is imported when it is asked for, because pytest loads this package in every run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wva_core.testing.builders import ballot, fleet_of, limits, observe, settings, vote
    from wva_core.testing.conformance import (
        ActuatorConformance,
        AnalyzerConformance,
        CollectorConformance,
        OptimizerConformance,
    )
    from wva_core.testing.samples import sample_observation

__all__ = [
    "ActuatorConformance",
    "AnalyzerConformance",
    "CollectorConformance",
    "OptimizerConformance",
    "ballot",
    "fleet_of",
    "limits",
    "observe",
    "sample_observation",
    "settings",
    "vote",
]

_HOME = dict.fromkeys(("ballot", "fleet_of", "limits", "observe", "settings", "vote"), "builders")
_HOME |= {"sample_observation": "samples"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'conformance')}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
