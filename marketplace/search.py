"""Finds views by words: in names, features, entities, owners, tags and descriptions.

Pure, and apart from the pages because the API asks it too. Every word of a query must match; a word that
matches nothing is replaced by the nearest word that the catalog knows, and the result says so.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from headwater.plans.plan import StreamView, View

WEIGHTS = {"name": 12.0, "entity": 6.0, "feature": 5.0, "tag": 4.0, "owner": 3.0, "source": 3.0, "description": 2.0}
"""How much a word counts by the place where it stands."""


@dataclass(frozen=True)
class Query:
    """What is looked for: words, and exact values of entity, owner and tag ("key:value" or "key")."""

    words: str = ""
    entity: str = ""
    owner: str = ""
    tag: str = ""

    @property
    def empty(self) -> bool:
        """Whether every view matches."""
        return not (self.words.strip() or self.entity or self.owner or self.tag)


@dataclass(frozen=True)
class Found:
    """The matching views, best first, and the words that were replaced by nearer ones."""

    views: tuple[View, ...]
    replaced: dict[str, str] = field(default_factory=dict)


def search(views: Sequence[View], query: Query) -> Found:
    """The views that match; in the order of their names where no words are given."""
    kept = sorted((v for v in views if _passes(v, query)), key=lambda v: v.name)
    words = _words(query.words)
    if not words:
        return Found(tuple(kept))
    texts = {v.name: tuple(_places(v)) for v in kept}
    replaced = _corrections(words, texts.values())
    wanted = [replaced.get(w, w) for w in words]
    scores = {v.name: _score(texts[v.name], wanted) for v in kept}
    ranked = sorted((v for v in kept if scores[v.name] > 0), key=lambda v: (-scores[v.name], v.name))
    return Found(tuple(ranked), replaced if ranked else {})


def _passes(view: View, query: Query) -> bool:
    key, _, value = query.tag.partition(":")
    tagged = key in view.tags and (not value or view.tags[key] == value)
    return (
        (not query.entity or query.entity in view.entities)
        and (not query.owner or query.owner == view.owner)
        and (not query.tag or tagged)
    )


def _places(view: View) -> Iterator[tuple[str, str]]:
    """(place, text in lower case) of all that a view can be found by."""
    yield "name", view.name.lower()
    for entity in (*view.entities, *(k.name for k in view.keys)):
        yield "entity", entity.lower()
    for output in view.outputs():
        yield "feature", output.name.lower()
    for key, value in view.tags.items():
        yield "tag", f"{key}:{value}".lower()
    yield "owner", view.owner.lower()
    yield "source", view.source.lower() if isinstance(view, StreamView) else "batch sql"
    yield "description", view.description.lower()


def _score(places: Iterable[tuple[str, str]], words: Sequence[str]) -> float:
    """The sum over the words of their best place; 0 where a word matches nowhere."""
    places = tuple(places)
    best = [max(WEIGHTS[place] * _match(text, word) for place, text in places) for word in words]
    return sum(best) if all(best) else 0.0


def _match(text: str, word: str) -> float:
    """1 for the whole text, less for a word in it, for the start of a word, for any part."""
    if text == word:
        return 1.0
    if word not in text:
        return 0.0
    parts = _parts(text)
    if word in parts:
        return 0.8
    return 0.6 if any(p.startswith(word) for p in parts) else 0.4


def _corrections(words: Iterable[str], texts: Iterable[tuple[tuple[str, str], ...]]) -> dict[str, str]:
    """The nearest known word for each word that no text contains."""
    known = [text for places in texts for _, text in places]
    vocabulary = {part for text in known for part in (text, *_parts(text)) if 1 < len(part) <= 40}
    replaced = {}
    for word in words:
        if not any(word in text for text in known):
            near = difflib.get_close_matches(word, sorted(vocabulary), n=1, cutoff=0.72)
            replaced.update({word: near[0]} if near else {})
    return replaced


def _words(text: str) -> list[str]:
    return text.lower().split()[:20]


def _parts(text: str) -> list[str]:
    return [p for p in re.split(r"[\W_]+", text) if p]
