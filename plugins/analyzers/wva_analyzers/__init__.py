"""
The analyzers shipped with the project: plugins that judge demand per scope and capacity per replica.

Each plugin is one folder here, named like its entry point in `wva.analyzers`; the package itself names nothing.
"""

__all__: list[str] = []
