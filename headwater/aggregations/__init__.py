"""aggregations."""
