"""Validation: whether values may be trusted. Expectation suites, the gate before a batch is published, the check."""
