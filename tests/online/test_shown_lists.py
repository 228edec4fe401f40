"""Lists in every answer: Python, both HTTP APIs, the command line, and Feast's protobufs."""

import json
from datetime import UTC, datetime

import pytest
from google.protobuf.json_format import MessageToDict

from headwater.cli.get import json_lines, table
from headwater.online.feature_rows import FeatureColumn, FeatureRows, Shape
from headwater.serving import feast_api, own_api

AT = 1_323_432_000_500_000
"""2011-12-09T12:00:00.500000Z"""
LISTS = {
    "list[int64]": [3, -(2**63)], "list[float64]": [0.1, 1e300], "list[string]": ["🫖", ""], "list[bool]": [True, False],
    "list[timestamp]": [AT, 0], "list[bytes]": [b"\x00\xff", b""],
    "counts[int64]": [[3, 7], [-(2**63), 1]], "counts[string]": [["🫖", 2], ["", 1]], "counts[float64]": [[0.1, 3]],
    "counts[bool]": [[False, 9]], "counts[timestamp]": [[AT, 2]], "counts[bytes]": [[b"\x00\xff", 4]],
}  # fmt: skip


@pytest.fixture
def rows():
    """A present row with lists, and one that is not there."""
    columns = [FeatureColumn("recent", f"f{i}", dtype) for i, dtype in enumerate(LISTS)]
    return FeatureRows(
        Shape(columns, {"id": "int64"}), {"id": [1, 2]}, [[values, []] for values in LISTS.values()],
        {"recent": ["PRESENT", "NOT_FOUND"]}, {"recent": [AT, AT]}, {"recent": [AT - 1, None]}, {},
    )  # fmt: skip


def test_python_gets_lists_with_datetimes(rows):
    found = rows.to_dict()
    moments = [datetime(2011, 12, 9, 12, 0, 0, 500_000, UTC), datetime(1970, 1, 1, tzinfo=UTC)]
    assert [values[0] for name, values in found.items() if name != "id"] == [
        {"list[timestamp]": moments, "counts[timestamp]": [[moments[0], 2]]}.get(dtype, values)
        for dtype, values in LISTS.items()
    ]
    assert [values[1] for name, values in found.items() if name != "id"] == [[]] * len(LISTS)


SHOWN = {
    **LISTS, "list[timestamp]": ["2011-12-09T12:00:00.500000Z", "1970-01-01T00:00:00.000000Z"],
    "list[bytes]": ["AP8=", ""], "counts[timestamp]": [["2011-12-09T12:00:00.500000Z", 2]],
    "counts[bytes]": [["AP8=", 4]],
}  # fmt: skip


def test_the_own_api_and_the_command_line_give_json_lists(rows):
    columns = json.loads(own_api.encode(rows))["columns"]
    assert [columns[f"recent__f{i}"] for i in range(len(LISTS))] == [[v, []] for v in SHOWN.values()]
    first, second = (json.loads(line) for line in json_lines(rows).splitlines())
    assert [first[f"recent__f{i}"] for i in range(len(LISTS))] == list(SHOWN.values())
    assert [second[f"recent__f{i}"] for i in range(len(LISTS))] == [[]] * len(LISTS)


def test_the_table_shows_times_of_lists_as_times(rows):
    assert "['2011-12-09T12:00:00.500000Z', '1970-01-01T00:00:00.000000Z']" in table(rows)


def test_feast_s_http_api_is_feast_s_own_json_of_its_protobufs(rows):
    import feast.feature_server  # noqa: F401  (makes protobuf's JSON Feast's own)
    from feast import proto_json

    from headwater.feast.online_store import _values

    proto_json.patch()
    results = json.loads(feast_api.encode(rows, feast_api.FeastRequest({}, full_feature_names=True)))["results"][1:]
    for column, values, result in zip(rows.shape.columns, rows.values, results, strict=True):
        if column.dtype != "list[bytes]":
            assert result["values"] == [MessageToDict(v) for v in _values(column.dtype, values)], column.dtype
    assert results[5]["values"] == [["AP8=", ""], []]
    assert json.loads(results[-1]["values"][0]) == [["AP8=", 4]]
    assert results[4]["values"] == [[AT // 1_000_000, 0], []]


def test_feast_s_sdk_reads_the_lists_back(rows):
    from feast.type_map import feast_value_type_to_python_type

    from headwater.feast.online_store import _values

    for column, values in zip(rows.shape.columns, rows.values, strict=True):
        expected = [SHOWN[column.dtype], []] if column.dtype.startswith("counts") else values
        if column.dtype == "list[timestamp]":
            expected = [[datetime.fromtimestamp(v // 1_000_000, UTC) for v in value] for value in values]
        assert [feast_value_type_to_python_type(v) for v in _values(column.dtype, values)] == expected
