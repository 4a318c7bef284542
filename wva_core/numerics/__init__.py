"""
Arrays in, arrays out: the mathematics of deciding replicas, without a type of the project.
"""

__all__: list[str] = []
