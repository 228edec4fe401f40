"""Collects what is wrong in the definitions of a repository, so that it is all said at once."""

from __future__ import annotations

import re

from headwater.durations import parse_duration
from headwater.errors import DefinitionError, DefinitionErrors

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")


class Problems:
    """A list of DefinitionErrors that grows while definitions are compiled."""

    def __init__(self) -> None:
        self.errors: list[DefinitionError] = []

    def add(self, place: str, what: str) -> None:
        """Note that `what` is wrong at `place`."""
        self.note(DefinitionError(f"{place}: {what}"))

    def note(self, error: DefinitionError) -> None:
        """Note an error that names its place itself; the same text is said once."""
        if str(error) not in {str(e) for e in self.errors}:
            self.errors.append(error)

    def raise_all(self) -> None:
        """Raise what was noted.

        Raises:
            DefinitionErrors: something was.
        """
        if self.errors:
            raise DefinitionErrors(self.errors)

    def duration(self, place: str, text: object) -> int | None:
        """Microseconds of a duration; None, and noted, where it is none. None stays None."""
        if text is None:
            return None
        try:
            return parse_duration(text)  # type: ignore[arg-type]
        except ValueError as error:
            self.add(place, f"{error}.")
            return None

    def name(self, place: str, name: object) -> bool:
        """Whether the name is one that every engine takes as it is; noted where it is not."""
        if isinstance(name, str) and _NAME.fullmatch(name):
            return True
        self.add(place, f"expected a name of letters, digits and underscores that begins with a letter, got {name!r}.")
        return False


def repeated(names: list[str]) -> list[str]:
    """The names that occur more than once where upper and lower case are one, as SQL engines have it."""
    seen: set[str] = set()
    again = []
    for name in names:
        if name.lower() in seen:
            again.append(name)
        seen.add(name.lower())
    return again
