"""prometheus_client's metric families from plain numbers: what every collector here is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def counters(name: str, text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]) -> Any:
    """A family of counters by the values of `labels`; prometheus_client ends the name with _total."""
    from prometheus_client.core import CounterMetricFamily

    return _filled(CounterMetricFamily, name, text, labels, values)


def gauges(name: str, text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]) -> Any:
    """A family of gauges by the values of `labels`."""
    from prometheus_client.core import GaugeMetricFamily

    return _filled(GaugeMetricFamily, name, text, labels, values)


def by_label(counts: Counter[str]) -> dict[tuple[str, ...], float]:
    """Counts of one label as `counters` takes them; a copy, since the loop goes on counting."""
    return {(name,): n for name, n in counts.copy().items()}


def _filled(
    kind: Callable[..., Any], name: str, text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]
) -> Any:
    family = kind(name, text, labels=labels)
    for found, value in values.items():
        family.add_metric(found, value)
    return family
