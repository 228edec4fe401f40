"""Aggregation states: how each statistic starts, takes events, merges and gives its value.

A statistic (`statistics.py`) is made of components (`components.py`, `latest.py`,
`hash_sets.py`), which several features may share; every state is canonical: it does not
depend on the order of events or on how they were cut into batches.
"""
