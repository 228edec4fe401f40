"""A campaign: seeded faults on real servers while events flow, and every value compared at the end.

`python -m tests.campaign --help`; `make soak` runs a long one, the suite a short one.
"""
