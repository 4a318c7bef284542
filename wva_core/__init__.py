"""
The Workload Variant Autoscaler: how many replicas of each variant of a language model a cluster should run.
"""

__version__ = "0.10.0.dev0"

__all__ = ["__version__"]
