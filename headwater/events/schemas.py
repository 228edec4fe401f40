"""Schemas from a Confluent-compatible schema registry, by the ids that events carry.

An id names one schema for ever, so a schema is fetched once and kept; what it says is part of what an
event's bytes mean. Only the registry's own "there is no such schema" (HTTP 404, error 40403) is an answer
about an event. Everything else (no connection, a wrong password, a proxy's page) is `RegistryUnreachable`:
whoever decodes has to wait, for the event may be perfectly good.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

import msgspec

from headwater.errors import MissingExtra, RegistryUnreachable, UsageError
from headwater.plans.plan import Source

NO_SCHEMA = 40403
NO_SUBJECT = 40401
NO_VERSION = 40402
INCOMPATIBLE = 409
TIMEOUT = 10.0
"""Seconds that one request may take."""
_NUMBERS = ("timeout", "cache.capacity", "cache.latest.ttl.sec")
_MOST_MISSING = 100_000
MISSING_FOR = 10.0
"""Seconds for which an id that the registry did not know is not asked for again: a replay after the registry was
mended must be read by workers that have refused the event before."""


class Schema(msgspec.Struct, frozen=True):
    """A schema as the registry holds it.

    Attributes:
        id: the registry's number.
        kind: "AVRO", "PROTOBUF" or "JSON".
        text: Avro: JSON. Protobuf: a FileDescriptorProto, serialised and in base64.
        references: the schemas that it refers to, by the names it uses, each before those that need it.
    """

    id: int
    kind: str
    text: str
    references: tuple[tuple[str, str], ...] = ()


class Schemas:
    """The schemas of one registry.

    Args:
        settings: `url` and what else Confluent's client takes, such as `basic.auth.user.info`.

    Attributes:
        answered: when the registry last answered (the monotonic clock, seconds).
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._settings = dict(settings or {})
        self._known: dict[int, Schema] = {}
        self._missing: dict[int, float] = {}
        self._connected: Any = None
        self.answered = -math.inf

    @property
    def url(self) -> str:
        """The registry's address, or a UsageError that says how to name it."""
        if not self._settings.get("url"):
            raise UsageError(
                "Events in Avro and Protobuf need a schema registry, and no address is known. Set "
                "'schema.registry.url: http://HOST:8081' under headwater in feature_store.yaml, or the environment "
                "variable HEADWATER_SCHEMA_REGISTRY_URL."
            )
        return self._settings["url"]

    def get(self, schema_id: int) -> Schema | None:
        """The schema of an id; None where the registry says that it has none.

        Raises:
            RegistryUnreachable: there is no answer, or none that a registry gives.
        """
        if (known := self._known.get(schema_id)) is not None:
            return known
        if self._missing.get(schema_id, -math.inf) > time.monotonic() - MISSING_FOR:
            return None
        try:
            schema = self._fetch(schema_id)
        except LookupError:
            if len(self._missing) >= _MOST_MISSING:
                self._missing.clear()
            self._missing[schema_id] = time.monotonic()
            return None
        return self._known.setdefault(schema_id, schema)

    def latest(self, subject: str) -> Schema | None:
        """The newest schema of a subject, such as "orders-value"; None where it has none. Asked anew each time.

        Raises:
            RegistryUnreachable: as `get`.
        """
        self._client.clear_caches()
        try:
            found = self._ask(lambda: self._client.get_latest_version(subject), (NO_SUBJECT, NO_VERSION))
        except LookupError:
            return None
        return self.get(int(found.schema_id))

    def register(self, subject: str, kind: str, text: str) -> int:
        """Put a schema into a subject, and say its id; the same schema again has the same id.

        Raises:
            UsageError: the subject's compatibility rules forbid it.
            RegistryUnreachable: as `get`.
        """
        from confluent_kafka.schema_registry import Schema as New

        try:
            return int(self._ask(lambda: self._client.register_schema(subject, New(text, kind)), (INCOMPATIBLE,)))
        except LookupError as error:
            raise UsageError(f"Subject {subject!r} of the schema registry does not take the schema: {error}") from error

    @property
    def _client(self) -> Any:
        if self._connected is None:
            url = self.url
            client = _client_class()
            try:
                # One try a request: who waits decides how often.
                self._connected = client({"timeout": TIMEOUT, "max.retries": 0, **_typed(self._settings)})
            except (ValueError, TypeError, OSError) as error:
                raise UsageError(f"The schema registry {url} cannot be used with these settings: {error}.") from error
        return self._connected

    def _fetch(self, schema_id: int) -> Schema:
        # Confluent's client keeps an answer whatever format was asked for.
        self._client.clear_caches()
        found = self._ask(lambda: self._client.get_schema(schema_id), (NO_SCHEMA,))
        kind = found.schema_type or "AVRO"
        if kind == "PROTOBUF":
            self._client.clear_caches()
            found = self._ask(lambda: self._client.get_schema(schema_id, fmt="serialized"), (NO_SCHEMA,))
        references: dict[str, str] = {}
        self._follow(found.references or [], kind, references)
        return Schema(schema_id, kind, found.schema_str or "", tuple(references.items()))

    def _follow(self, references: Sequence[Any], kind: str, into: dict[str, str]) -> None:
        for one in references:
            if one.name not in into:
                form = {"fmt": "serialized"} if kind == "PROTOBUF" else {}
                found = self._ask(
                    lambda one=one, form=form: self._client.get_version(one.subject, one.version, deleted=True, **form),
                    (NO_SUBJECT, NO_VERSION, NO_SCHEMA),
                ).schema
                self._follow(found.references or [], kind, into)
                into[one.name] = found.schema_str or ""

    def _ask(self, request: Any, refusals: Sequence[int]) -> Any:
        """The answer; LookupError where it is one of the refusals."""
        from confluent_kafka.schema_registry import SchemaRegistryError
        from httpx import HTTPError

        try:
            answer = request()
            self.answered = time.monotonic()
            return answer
        except SchemaRegistryError as error:
            if error.error_code in refusals:
                self.answered = time.monotonic()
                raise LookupError(error.error_message) from error
            self._unreachable(_said(error), error)
        except HTTPError as error:
            self._unreachable(f"gives no answer ({error or type(error).__name__})", error)
        except (ValueError, KeyError, TypeError) as error:
            self._unreachable(f"gives an answer that no schema registry gives ({error})", error)

    def _unreachable(self, what: str, cause: Exception) -> NoReturn:
        raise RegistryUnreachable(f"The schema registry {_without_password(self.url)} {what}.") from cause


def _typed(settings: Mapping[str, str]) -> dict[str, Any]:
    """The settings as the client wants them: some are numbers."""
    return {name: float(value) if name in _NUMBERS else value for name, value in settings.items()}


def subject_of(topic: str) -> str:
    """The subject of a topic's values, by Confluent's usual naming."""
    return f"{topic}-value"


def schema_to_write(schemas: Schemas, source: Source, kind: str, own: Callable[[Source], str]) -> tuple[Schema, str]:
    """The newest schema of a source's topic, and how messages name it; where there is none, `own` is registered.

    Raises:
        RegistryUnreachable: the schema registry does not answer.
        UsageError: the subject takes no schema, or its newest one is of another kind.
    """
    subject = subject_of(source.topic)
    schema = schemas.latest(subject)
    if schema is None:
        text = own(source)
        schema = Schema(schemas.register(subject, kind, text), kind, text)
    place = f"Schema {schema.id} of subject {subject!r}"
    if schema.kind != kind:
        raise UsageError(f"{place} is {schema.kind}, and source {source.name!r} is in {kind.capitalize()}.")
    return schema, place


def _client_class() -> Any:
    try:
        with warnings.catch_warnings():
            # It turns its own warnings on when it is imported; they are about its next version.
            import_module("authlib.deprecate")
            warnings.simplefilter("ignore")
            from confluent_kafka.schema_registry import SchemaRegistryClient
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "httpx", "avro", "The schema registry") from error
    return SchemaRegistryClient


def _said(error: Any) -> str:
    if error.http_status_code in (401, 403):
        return (
            f"refuses our account (HTTP {error.http_status_code}): check schema.registry.basic.auth.user.info or "
            "schema.registry.bearer.auth.token"
        )
    if error.http_status_code == 404:
        return (
            f"does not answer as a schema registry does (HTTP 404: {str(error.error_message)[:80]}): check its address"
        )
    return f"answers with an error (HTTP {error.http_status_code}: {str(error.error_message)[:200]})"


def _without_password(url: str) -> str:
    return ",".join(
        part.split("://")[0] + "://" + part.rsplit("@", 1)[1] if "@" in part else part for part in url.split(",")
    )
