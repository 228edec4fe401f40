"""Parquet files of spines and training sets: read with clear errors, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.errors import UsageError


def read_parquet(path: Path) -> pa.Table:
    """A Parquet file's table.

    Raises:
        UsageError: there is no such file, or it is not Parquet.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder, expected a Parquet file.")
    try:
        return pq.read_table(path)
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {path}.") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{path} is not a Parquet file: {error}") from error


def write_parquet(table: pa.Table, path: Path) -> None:
    """Writes beside the target and renames, so that nobody ever sees half a file.

    Raises:
        UsageError: the folder is not there or cannot be written to.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise UsageError(f"Cannot write {path}: {error.strerror or error}.") from error
    os.close(handle)
    try:
        pq.write_table(table, temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
