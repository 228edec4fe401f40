"""Loads the rooms (pipelines, validation, marketplace) by name; the wheel does not carry them."""

from __future__ import annotations

import importlib
from typing import Any

from headwater.errors import MissingExtra, UsageError

_EXTRAS = {
    "confluent_kafka": "stream", "deltalake": "lake", "duckdb": "lake", "polars": "lake", "pyarrow": "lake",
    "prometheus_client": "monitoring",
    "pyspark": "spark", "great_expectations": "validation", "starlette": "catalog", "jinja2": "catalog",
    "uvicorn": "serve", "feast": "feast", "sqlglot": "feast", "hypothesis": "test",
}  # fmt: skip


def load(module: str) -> Any:
    """The module, such as "pipelines.sink".

    Raises:
        UsageError: the room is not there (the wheel alone is installed).
        MissingExtra: a package of an optional extra is missing.
    """
    room = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing == room != "headwater":
            raise UsageError(
                f"This command needs the folder '{room}/' of a Headwater checkout (or its Docker image); "
                f"the installed package carries the library alone. Run it from a checkout."
            ) from error
        if missing in _EXTRAS:
            raise MissingExtra(missing, _EXTRAS[missing], f"'{module}'") from error
        raise
