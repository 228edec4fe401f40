"""The SQL subset of `where` and `derive`: one meaning in the stream, in DuckDB and in Spark.

`subset.py` is the table of what is allowed, `parse.py` turns text into the typed tree of
`syntax.py`, `evaluate.py` computes it over numpy columns, `sql.py` renders it for engines.
"""
