"""How values get made: the Kafka worker, the warehouse sink, backfill, and batches on the local engine or on Spark."""
