"""
The collectors shipped with the project: plugins that see the fleet and measure its signals.

Each plugin is one folder here, named like its entry point in `wva.collectors`; the package itself names nothing.
"""

__all__: list[str] = []
