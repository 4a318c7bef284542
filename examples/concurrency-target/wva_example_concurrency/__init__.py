"""
An analyzer of a third party: a target number of concurrent requests per replica.
"""

from wva_example_concurrency.plugin import ConcurrencyTarget

__all__ = ["ConcurrencyTarget"]
