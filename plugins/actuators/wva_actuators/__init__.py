"""
The actuators shipped with the project: plugins that deliver a plan to the world.

Each plugin is one folder here, named like its entry point in `wva.actuators`; the package itself names nothing.
"""

__all__: list[str] = []
