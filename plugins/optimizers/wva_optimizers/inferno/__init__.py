"""
The `inferno` optimizer: one accelerator for every server, the ones that have most to lose first.
"""

from wva_optimizers.inferno.plugin import Inferno

__all__ = ["Inferno"]
