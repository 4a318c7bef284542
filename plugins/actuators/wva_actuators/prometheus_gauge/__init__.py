"""
Actuator `prometheus-gauge`: publishes the plan as metrics, for an HPA or KEDA to follow.
"""
