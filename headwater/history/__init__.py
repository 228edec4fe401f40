"""Reads of history: the value of every feature at every row's time, from the lake.

`training_set.py` is the way in; `local.py` answers windowed views from the event log, `as_of.py` plain ones.
"""
