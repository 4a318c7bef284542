"""
Saturation by percentages, as upstream WVA judged it first: one replica up or down by mean spare KV cache and queue.
"""

from wva_analyzers.saturation_v1.plugin import SaturationV1

__all__ = ["SaturationV1"]
