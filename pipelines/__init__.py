"""How values get made: the Kafka worker, the sink, backfill, materialize."""
