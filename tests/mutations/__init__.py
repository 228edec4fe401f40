"""Rules of the stream path taken out of the code one by one: each has to make its test fail.

`python -m tests.mutations` runs them in a copy of the last commit, and prints the table of docs/stream-rules.md.
"""
