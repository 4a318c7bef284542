"""
Latency objectives turned into capacity: a queueing model of each variant, learnt from what its replicas show.
"""

from wva_analyzers.queueing_model.plugin import QueueingModel

__all__ = ["QueueingModel"]
