"""
The optimizers shipped with the project: plugins that turn needs and limits into replicas per variant.

Each plugin is one folder here, named like its entry point in `wva.optimizers`; the package itself names nothing.
"""

__all__: list[str] = []
