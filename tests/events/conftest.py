"""Schema registries of the tests of events."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.schema_registry import SchemaRegistry


@pytest.fixture(scope="module")
def registry() -> Iterator[SchemaRegistry]:
    """A registry that the tests of a module share: they add schemas, and take none away."""
    server = SchemaRegistry()
    yield server
    server.stop()


@pytest.fixture
def own_registry() -> Iterator[SchemaRegistry]:
    """An empty registry for one test, which it may stop."""
    server = SchemaRegistry()
    yield server
    server.stop()
