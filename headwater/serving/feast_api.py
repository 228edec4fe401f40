"""Feast's HTTP API, `POST /get-online-features`: its request and its response, JSON for JSON.

Apart from asgi.py, which knows no shapes, and from own_api.py, which is not bound to another's. What Feast's
feature server answers (MessageToDict of GetOnlineFeaturesResponse) is the specification: timestamps of
features are whole seconds, bytes are base64, the times of rows are RFC 3339 with 0, 3 or 6 digits.
Ours alone: `"receipts": true` adds `receipts`, and `as_of` may say when to read.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import msgspec
import orjson

from headwater.dtypes import Dtype, element_of, is_counts, is_list
from headwater.online.feature_rows import FeatureRows, counts_text, rfc_3339


class FeastRequest(msgspec.Struct):
    """The request's body; unknown fields are ignored, as Feast does."""

    entities: dict[str, list[Any]]
    feature_service: str | None = None
    features: list[str] = []
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False
    receipts: bool = False
    as_of: str | int | None = None


_request = msgspec.json.Decoder(FeastRequest)


def decode(body: bytes) -> FeastRequest:
    """Raises msgspec.DecodeError where the body is not such a request."""
    return _request.decode(body)


def encode(rows: FeatureRows, request: FeastRequest) -> bytes:
    """The response's body. Raises UsageError where two features would have one name."""
    count = len(rows)
    names = [*rows.entities, *rows.shape.names(request.full_feature_names)]
    epoch = _list_of("1970-01-01T00:00:00Z", count)
    present = _list_of("PRESENT", count)
    results: list[Any] = []
    for name, values in rows.entities.items():
        shown = _transported(rows.shape.key_dtypes[name], values)
        results.append({"values": shown, "statuses": present, "event_timestamps": epoch})
    times = {view: orjson.Fragment(orjson.dumps([_time(t) for t in ts])) for view, ts in rows.newest.items()}
    statuses = {view: orjson.Fragment(orjson.dumps(each)) for view, each in rows.statuses.items()}
    for column, values in zip(rows.shape.columns, rows.values, strict=True):
        marks: Any = statuses[column.view]
        if None in values:
            marks = _with_nulls(values, rows.statuses[column.view])
        shown = _transported(column.dtype, values)
        results.append({"values": shown, "statuses": marks, "event_timestamps": times[column.view]})
    body: dict[str, Any] = {"results": results, "metadata": {"feature_names": names}}
    if request.include_feature_view_version_metadata:
        body["metadata"]["feature_view_metadata"] = [{"name": view} for view in rows.statuses]
    if request.receipts:
        body["receipts"] = orjson.Fragment(msgspec.json.encode(rows.receipts))
    return orjson.dumps(body)


def _transported(dtype: Dtype, values: list[Any]) -> list[Any]:
    if is_counts(dtype):
        return [None if value is None else counts_text(dtype, value) for value in values]
    convert = _CONVERSIONS.get(element_of(dtype))
    if convert is None:
        return values
    if is_list(dtype):
        return [None if value is None else [convert(v) for v in value] for value in values]
    return [None if value is None else convert(value) for value in values]


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "timestamp": lambda micros: micros // 1_000_000,
    "bytes": lambda data: base64.b64encode(data).decode(),
}


def _with_nulls(values: list[Any], statuses: list[str]) -> list[str]:
    return [
        "NULL_VALUE" if value is None and status == "PRESENT" else status
        for value, status in zip(values, statuses, strict=True)
    ]


def _list_of(text: str, count: int) -> orjson.Fragment:
    return orjson.Fragment(b"[" + b",".join([b'"%b"' % text.encode()] * count) + b"]")


def _time(micros: int | None) -> str:
    """Protobuf's JSON form of a Timestamp: as many digits as needed, in threes; the epoch where there is none."""
    text = rfc_3339(micros or 0)
    if text.endswith("000000Z"):
        return text[:-8] + "Z"
    return text[:-4] + "Z" if text.endswith("000Z") else text
