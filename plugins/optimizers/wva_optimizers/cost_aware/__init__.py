"""
The `cost-aware` optimizer: as many replicas as the need asks for, best capacity for the money first.
"""

from wva_optimizers.cost_aware.plugin import CostAware

__all__ = ["CostAware"]
