"""
How a plugin is written, found, checked and called.
"""

from wva_core.hooks.runtime import Clock, Fence, Runtime
from wva_core.hooks.specs import (
    API,
    ActuationReport,
    Prediction,
    Thresholds,
    hookimpl,
)

__all__ = ["API", "ActuationReport", "Clock", "Fence", "Prediction", "Runtime", "Thresholds", "hookimpl"]
