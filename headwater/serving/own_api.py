"""Headwater's own HTTP API, `POST /v1/features`: columns in, columns out, nothing repeated.

Request: `{"features": ["VIEW:FEATURE", "VIEW"] | "service": NAME, "entities": {KEY: [values]} | [{KEY: value}],
"as_of": TIME | [TIME, one a row], "receipts": false}`. Response: `{"columns": {KEY or VIEW__FEATURE: [values]},
"statuses": {VIEW: [status]}, "as_of": {VIEW: [time read at]}}` and, where asked for, `"receipts": {VIEW: [receipt]}`.
Timestamps are RFC 3339 in UTC with six digits of a second, bytes are base64.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import orjson

from headwater.online.feature_rows import FeatureRows, rfc_3339


class OwnRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The request's body; a field that is unknown is an error, so that a misspelt one is found."""

    entities: dict[str, list[Any]] | list[dict[str, Any]]
    features: list[str] = []
    service: str | None = None
    as_of: str | int | list[str | int] | None = None
    receipts: bool = False


_request = msgspec.json.Decoder(OwnRequest)


def decode(body: bytes) -> OwnRequest:
    """Raises msgspec.DecodeError where the body is not such a request."""
    return _request.decode(body)


def encode(rows: FeatureRows) -> bytes:
    """The response's body."""
    body: dict[str, Any] = {
        "columns": rows.shaped(rfc_3339),
        "statuses": rows.statuses,
        "as_of": {view: [rfc_3339(t) for t in times] for view, times in rows.as_of.items()},
    }
    if rows.receipts:
        body["receipts"] = orjson.Fragment(msgspec.json.encode(rows.receipts))
    return orjson.dumps(body, default=_bytes)


def _bytes(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"no JSON for {type(value).__name__}")
