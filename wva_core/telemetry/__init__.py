"""
What the process tells about itself: records of its cycles and their explanation.

Modules are imported one by one, so that a command pays only for what it uses.
"""

__all__: list[str] = []
