"""
One replica at a time: the cheapest variant of a scope grows, the dearest shrinks.
"""

from wva_optimizers.stepwise.plugin import Stepwise

__all__ = ["Stepwise"]
