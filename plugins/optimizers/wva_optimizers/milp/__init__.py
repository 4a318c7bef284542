"""
The `milp` optimizer: the cheapest replicas that serve as much as possible, with the proof of how cheap they are.
"""

from wva_optimizers.milp.plugin import Milp

__all__ = ["Milp"]
