"""
The control cycle and everything in it that is not a plugin.
"""

from wva_core.engine.brain import Brain
from wva_core.engine.cycle import Decision, decide
from wva_core.engine.deadline import Deadline
from wva_core.engine.loop import CycleResult, Engine, PolicyRefused
from wva_core.engine.replay import replay, same_plan

__all__ = ["Brain", "CycleResult", "Deadline", "Decision", "Engine", "PolicyRefused", "decide", "replay", "same_plan"]
