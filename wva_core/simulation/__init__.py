"""
The embedded world: traffic, model servers, a cluster, what is scraped of it, and an HPA, on simulated time.
"""

__all__: list[str] = []
