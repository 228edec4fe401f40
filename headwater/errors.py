"""Every error that Headwater raises on purpose.

The hierarchy, and the exit code that the command line gives each::

    HeadwaterError                     1
    ├── DefinitionError                1   one wrong definition: object, place, expected, got
    ├── DefinitionErrors               1   all wrong definitions of a repository at once
    ├── GateClosed                     1   a batch failed its expectations; nothing was published
    ├── DefectsFound                   1   the check found differences that nothing explains
    ├── TopicChanged                   1   a topic was recreated, or a position lies outside of its log
    ├── LakeDamaged                    1   a table of the lake cannot be read as it was written
    ├── ReadError                      1   a value that cannot be given: past its type, a damaged row
    │   └── Unavailable                1   no plan, or a view that is not filled yet: may be there later
    ├── SparkFailed                    1   Spark failed, again and again (pipelines/spark_failures.py)
    ├── CommandError                   1   Redis answered a command with an error (online/connection.py)
    ├── UsageError                     2   wrong use of a command or a function
    │   ├── UnknownName                2   a view, feature or service that the plan does not have
    │   └── MissingExtra               2   a Python package of an extra is not installed
    └── Unreachable                    3   a server did not answer: worth trying again (transient)
        ├── RegistryUnreachable        3   the schema registry did not, so what an event says is not known yet
        ├── KafkaUnreachable           3   no broker did
        └── LakeUnreachable            3   the lake's disk is full, or its object store does not take what is written

Messages say the object, what was expected, what was got, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class HeadwaterError(Exception):
    """The root: catching it catches all that Headwater raises on purpose."""

    exit_code = 1


class DefinitionError(HeadwaterError):
    """One definition is wrong. The message names the object and the place in it."""


class DefinitionErrors(HeadwaterError):
    """All wrong definitions of a repository, collected so that they are mended in one go."""

    def __init__(self, errors: Sequence[DefinitionError]) -> None:
        self.errors = list(errors)
        count = f"{len(self.errors)} wrong definitions" if len(self.errors) != 1 else "1 wrong definition"
        super().__init__("\n".join([f"{count}; nothing was written.", *(f"  - {e}" for e in self.errors)]))


class GateClosed(HeadwaterError):
    """A batch did not meet its expectations, so nothing of it was published."""


class DefectsFound(HeadwaterError):
    """The consistency check found differences that no known cause explains."""


class TopicChanged(HeadwaterError):
    """A topic is not the one that was recorded, or a position lies outside of its log."""


class LakeDamaged(HeadwaterError):
    """A table of the lake cannot be read as it was written: files or commits are gone, broken or of other types."""


class ReadError(HeadwaterError):
    """A feature value cannot be given: it does not fit its type, or its view is unavailable."""


class Unavailable(ReadError):
    """Nothing can be read yet: no plan is published, or the view has no complete fill. Never zeros instead."""


class UsageError(HeadwaterError):
    """A command or function was used wrongly."""

    exit_code = 2


class UnknownName(UsageError):
    """A feature view, feature or feature service was asked for that the published plan does not have."""


class MissingExtra(UsageError):
    """A package of an optional extra is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the Python package '{package}', which is not installed. "
            f"Install it with: pip install 'headwater[{extra}]'"
        )


class Unreachable(HeadwaterError):
    """A server did not answer. Trying again may help."""

    exit_code = 3


class RegistryUnreachable(Unreachable):
    """The schema registry did not answer, or not as one: what an event says is not known yet."""


class KafkaUnreachable(Unreachable):
    """No broker answered."""


class LakeUnreachable(Unreachable):
    """The lake's disk or object store did not take what was written; whether a commit holds is to be looked up."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known names, or all of them where none is near."""
    names = sorted(set(known))
    if not names:
        return "There are none."
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(repr(c) for c in close)}? It has: {', '.join(names)}."
    return f"It has: {', '.join(names)}."
