"""
Collector `simulation`: the embedded world as a cluster and a metrics store would show it.
"""
