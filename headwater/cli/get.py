"""`headwater get`: features online, as a table for people or as one JSON object a row."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.asked import one_of_features_and_service, parse_time
from headwater.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from headwater.cli import Context
    from headwater.online.feature_rows import FeatureRows
    from headwater.serving.client import Client

EXAMPLES = """\b
Examples:
  headwater get --features customer_spend --entity customer_id=17850
  headwater get --features customer_spend:count_1h,customer_profile --entity customer_id=17850 --json
  headwater get --service churn --entity customer_id=17850 --entity customer_id=13047 --receipts
  headwater get --features product_country_demand --entity stock_code=85123A,country=France
  headwater get --service churn --entities customers.parquet --json > features.jsonl
"""

CHUNK = 1_000
"""Rows of a file a request."""
AT = "at"


@click.command("get", epilog=EXAMPLES)
@click.option("--features", metavar="VIEW:FEATURE,…|VIEW,…", help="What to read; a view alone: all its features.")
@click.option("--service", metavar="NAME", help="The features of a feature service.")
@click.option("--entity", "entities", metavar="KEY=VALUE[,KEY=VALUE]", multiple=True, help="Whose; may be repeated.")
@click.option(
    "--entities",
    "file",
    metavar="FILE.parquet",
    help="Whose, from a file: join keys, and optionally `at`, a time a row.",
)
@click.option(
    "--as-of", metavar="TIME", help="The time to read at: RFC 3339 or a date, UTC without a zone. Default: now."
)
@click.option("--receipts", is_flag=True, help="Also what proves each row: offsets, definition, digest.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a row, in order.")
@click.pass_obj
def command(
    context: Context,
    features: str | None,
    service: str | None,
    entities: tuple[str, ...],
    file: str | None,
    as_of: str | None,
    receipts: bool,
    as_json: bool,
) -> None:
    """Read features online.

    A row that is not there still has values: counts are 0, others null; its status says NOT_FOUND. The time
    shown is the one that was read at, which is never before the row's newest event.
    """
    from headwater.serving.client import Client

    one_of_features_and_service(features, service)
    if bool(entities) == (file is not None):
        got = "both" if entities else "neither"
        raise UsageError(
            f"Say whose, by either --entity KEY=VALUE (may be repeated) or --entities FILE.parquet; got {got}."
        )
    at = None if as_of is None else parse_time(as_of, "--as-of")
    repository = context.repository()
    names = [name.strip() for name in features.split(",") if name.strip()] if features else []
    with Client(redis=repository.need_redis(), project=repository.project) as client:
        asked = _given(client, entities, at) if file is None else _from_file(client, file, at)
        for columns, times in asked:
            rows = client.get(names, service=service, entities=columns, as_of=times, receipts=receipts)
            sys.stdout.write(json_lines(rows) if as_json else table(rows))
    sys.stdout.flush()


def json_lines(rows: FeatureRows) -> str:
    """One line a row: join keys, VIEW__FEATURE, `_status`, `_as_of` and, where asked for, `_receipts`."""
    import base64

    import msgspec
    import orjson

    from headwater.online.feature_rows import rfc_3339

    columns = rows.shaped(rfc_3339)
    views = list(rows.statuses)
    lines = []
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        line = dict(zip(columns, values, strict=True))
        line["_status"] = {view: rows.statuses[view][i] for view in views}
        line["_as_of"] = {view: rfc_3339(rows.as_of[view][i]) for view in views}
        if rows.receipts:
            line["_receipts"] = {view: msgspec.to_builtins(rows.receipts[view][i], str_keys=True) for view in views}
        lines.append(orjson.dumps(line, default=lambda data: base64.b64encode(data).decode()))
    return b"".join([line + b"\n" for line in lines]).decode()


def table(rows: FeatureRows) -> str:
    """For people: an entity a block, features below each other, with each view's status and read time."""
    import msgspec

    from headwater.online.feature_rows import rfc_3339

    values_of = list(rows.shaped(rfc_3339).values())[len(rows.entities) :]
    width = max([len(c.feature) + 2 for c in rows.shape.columns] + [len(v) for v in rows.statuses])
    out = []
    for i in range(len(rows)):
        out.append("  ".join(f"{name}={_shown(values[i])}" for name, values in rows.entities.items()))
        for view, statuses in rows.statuses.items():
            out.append(f"  {view:<{width}}  {statuses[i]}, as of {rfc_3339(rows.as_of[view][i])}")
            for column, values in zip(rows.shape.columns, values_of, strict=True):
                if column.view == view:
                    out.append(f"    {column.feature:<{width - 2}}  {_shown(values[i])}")
            if rows.receipts:
                receipt = msgspec.json.encode(rows.receipts[view][i]).decode()
                out.append(f"    {'receipt':<{width - 2}}  {receipt}")
    return "".join(line + "\n" for line in out)


def _shown(value: Any) -> str:
    return "null" if value is None else value if isinstance(value, str) else repr(value)


def _given(client: Client, texts: Sequence[str], as_of: int | None) -> Iterator[tuple[Any, Any]]:
    from headwater.online.entities import parse_entity

    keys = {key.name: key.dtype for view in client.published().plan.views for key in view.keys}
    yield [parse_entity(text, keys) for text in texts], as_of


def _from_file(client: Client, path: str, as_of: int | None) -> Iterator[tuple[Any, Any]]:
    """The file's rows in chunks: join key columns, and the times to read them at."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise MissingExtra("pyarrow", "lake", "Reading entities from a Parquet file") from error
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise UsageError(f"--entities {path}: there is no such file.") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"--entities {path}: not a Parquet file: {error}") from error
    with file:
        names = file.schema_arrow.names
        if AT in names and as_of is not None:
            raise UsageError(f"--entities {path} has a column 'at', a read time a row: leave --as-of out.")
        known = {key.name for view in client.published().plan.views for key in view.keys}
        ignored = [name for name in names if name not in known and name != AT]
        if ignored:
            click.echo(f"Ignored columns of {path}, which are no join keys: {', '.join(ignored)}.", err=True)
        for batch in file.iter_batches(CHUNK, columns=[name for name in names if name not in ignored]):
            columns = {name: _python(batch.column(name)) for name in batch.schema.names}
            times = columns.pop(AT, None)
            yield columns, as_of if times is None else [_time(path, time) for time in times]


def _time(path: str, value: Any) -> int:
    """A read time of the column `at`: microseconds, or text as for --as-of."""
    if type(value) is int:
        return value
    if isinstance(value, str):
        return parse_time(value, f"--entities {path}: in column '{AT}',")
    raise UsageError(f"--entities {path}: expected a time in every row of its column '{AT}', got {_shown(value)}.")


def _python(array: Any) -> list[Any]:
    """Python values; timestamps (without a zone: UTC) and dates as int microseconds."""
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("us"))
    if pa.types.is_timestamp(array.type):
        per_unit = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
        times, over = per_unit[array.type.unit]
        # `//` floors nanoseconds, also before 1970, where Arrow's own cast would round towards zero.
        return [None if value is None else value * times // over for value in array.cast(pa.int64()).to_pylist()]
    items: list[Any] = array.to_pylist()
    return items
