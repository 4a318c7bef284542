"""
Actuator `simulation`: scales the deployments of the embedded world directly.
"""
