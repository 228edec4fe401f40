"""Changes in words for people: what `headwater plan` shows and `headwater apply` announces.

Apart from diff.py because a person reads otherwise than a program: what is added is put together in a few
lines a view, what is changed is shown place by place.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from headwater.plans.diff import Change, Difference

SIGNS = {"added": "+", "changed": "~", "removed": "-"}
WIDTH = 110

Line = tuple[str, str]
"""What it is ("added", "changed", "removed" or "detail"), and its text."""


def summary(changes: Sequence[Change]) -> str:
    """How many objects are added, changed and removed."""
    counts = {kind: sum(1 for c in changes if c.change == kind) for kind in SIGNS}
    return ", ".join(f"{n} {kind}" for kind, n in counts.items())


def as_lines(changes: Sequence[Change], *, full: bool = False) -> list[Line]:
    """The changes as lines of text; `full`: added objects with all that they say, place by place."""
    return [line for change in changes for line in _lines(change, full)]


def _lines(change: Change, full: bool) -> list[Line]:
    short = change.change == "added" and not full
    head, details = _put_together(change) if short else ("", [_place(change.change, d) for d in change.differences])
    if change.consumers:
        details.append(f"used by {', '.join(change.consumers)}")
    if change.refill and change.change == "changed":
        details.append("its values change their meaning: it has to be filled again")
    title = f"{SIGNS[change.change]} {change.kind} {change.name}{head}"
    return [(change.change, title), *(("detail", f"    {line}") for text in details for line in _wrapped(text))]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _place(change: str, difference: Difference) -> str:
    place, old, new = difference.place, difference.old, difference.new
    if change == "added":
        return f"{place}: {new}"
    if old is None:
        return f"+ {place}: {new}"
    return f"- {place}: {old}" if new is None else f"~ {place}: {old} -> {new}"


def _put_together(change: Change) -> tuple[str, list[str]]:
    """An added object: what follows its name, and the few lines below it."""
    said = {d.place: d.new or "" for d in change.differences}
    if change.kind == "source":
        key = f", key {said['key']}" if "key" in said else ""
        return f": topic {said['topic']}, {_counted(_of(said, 'column'), 'column')}{key}", []
    if change.kind == "service":
        views = _of(said, "view")
        features = [name for names in views.values() for name in names.split(", ")]
        return f": {_counted(features, 'feature')} of {', '.join(views)}", []
    features = list(_of(said, "feature"))
    head = f": {_counted(features, 'feature')} by {said['entities']} from {said.get('source', 'SQL')}"
    where = [f"where {said['where']}"] if "where" in said else []
    derived = [f"{name} = {text}" for name, text in _of(said, "derive").items()]
    return head, [*where, *derived, ", ".join(features)]


def _of(said: dict[str, str], what: str) -> dict[str, str]:
    """The places of one kind by their name: "feature count_1h" of what "feature" is "count_1h"."""
    return {place.partition(" ")[2]: text for place, text in said.items() if place.startswith(f"{what} ")}


def _counted(items: Iterable[str], noun: str) -> str:
    number = len(list(items))
    return f"{number} {noun}{'' if number == 1 else 's'}"
