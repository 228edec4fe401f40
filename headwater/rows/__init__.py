"""Rows: all online state of one view for one entity key, as bytes and as tables in memory."""
