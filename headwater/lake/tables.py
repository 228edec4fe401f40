"""Where the lake's tables lie, how they are opened, and how their files are read.

Apart from what the tables hold, because every table is opened and read in the same way: one handle is
one snapshot, and the handle's own list of files is what is read. A file of that list that is gone is an
error that names it, never fewer rows.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from headwater.errors import LakeDamaged, LakeUnreachable, Unreachable

MICROS = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class TablePath:
    """One table: its name in the lake, such as "events/orders", and its path or URL."""

    name: str
    uri: str

    def open(self) -> DeltaTable | None:
        """A handle on the newest version, None where there is no table yet.

        Raises:
            LakeDamaged: a commit of its log is gone or broken, or the log is gone and files are there.
            Unreachable: the object store does not answer.
        """
        for patience in (0.05, 0.2, None):
            try:
                return DeltaTable(self.uri)
            except TableNotFoundError:
                break
            except DeltaError as error:
                # A listing taken while commits arrive may show a later one without an earlier one.
                if patience is None:
                    raise LakeDamaged(
                        f"The log of table {self.name!r} of the lake ({self.uri}/_delta_log) cannot be read: "
                        f"{first_line(error)}. {_MEND}"
                    ) from error
                time.sleep(patience)
            except OSError as error:
                raise Unreachable(f"The lake's table {self.name!r} at {self.uri} cannot be opened: {error}") from error
        if files := self._left_files():
            raise LakeDamaged(
                f"Table {self.name!r} of the lake ({self.uri}) has {files} data files, and its log, the folder "
                f"_delta_log, is gone. {_MEND}"
            )
        return None

    def _left_files(self) -> int:
        """How many data files lie in a folder that is no table (object stores are not asked)."""
        if "://" in self.uri or not os.path.isdir(self.uri):
            return 0
        return sum(name.endswith(".parquet") for name in os.listdir(self.uri))

    def create(self, schema: pa.Schema, configuration: dict[str, str | None] | None = None) -> DeltaTable:
        """The table's handle, created empty where there was none (an existing one stays as it is).

        Raises:
            LakeUnreachable: the disk or the object store failed.
        """
        with writing(self):
            if "://" not in self.uri:
                os.makedirs(self.uri, exist_ok=True)
            return DeltaTable.create(
                self.uri, schema, mode="ignore", configuration=configuration, raise_if_key_not_exists=False
            )


# Of a full disk deltalake says "Generic LocalFileSystem error: … (os error 28)", within errors of many kinds.
_STORAGE = re.compile(r"Generic \w+ error|os error \d+")


@contextlib.contextmanager
def writing(table: TablePath) -> Iterator[None]:
    """Within, what the disk or the object store refuses is a LakeUnreachable; Delta's own errors stay as they are."""
    try:
        yield
    except (OSError, DeltaError) as error:
        if isinstance(error, DeltaError) and not _STORAGE.search(str(error)):
            raise
        raise LakeUnreachable(
            f"the lake's table {table.name!r} at {table.uri} cannot be written: {first_line(error)}"
        ) from error


_MEND = (
    "Restore the folder from a backup. A topic's events can also be read again as far as Kafka still has them: "
    "move the folder away and run 'headwater sink'."
)


def first_line(error: Exception) -> str:
    """What an engine's error says, without the stack and the dumps that follow."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return line if len(line) <= 300 else f"{line[:300]}…"


def files_of(handle: DeltaTable) -> list[str]:
    """Paths or URLs of the Parquet files of the handle's snapshot."""
    # Delta spells paths as in URLs: a folder "my shop" comes back as "my%20shop".
    uris = (uri.removeprefix("file://") for uri in handle.file_uris())
    return [uri if "://" in uri else unquote(uri) for uri in uris]


def missing_files(files: Sequence[str]) -> list[str]:
    """Those of the files that are not there."""
    local = [f for f in files if "://" not in f]
    if len(local) == len(files):
        return [f for f in local if not os.path.exists(f)]
    system, _ = pafs.FileSystem.from_uri(files[0])
    paths = [f.split("://", 1)[1] for f in files]
    infos = system.get_file_info(paths)
    return [f for f, info in zip(files, infos, strict=True) if info.type == pafs.FileType.NotFound]


def check_files(table: TablePath, files: Sequence[str]) -> None:
    """Raise where a file is gone.

    Raises:
        LakeDamaged: naming the files and the table.
    """
    missing = missing_files(files)
    if missing:
        named = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise LakeDamaged(
            f"Table {table.name!r} of the lake ({table.uri}) lacks {len(missing)} of its {len(files)} files: {named}. "
            "Put them back, or restore the table from a backup; 'headwater check' says which views that concerns."
        )


def read_files(
    table: TablePath,
    files: Sequence[str],
    schema: pa.Schema,
    columns: Sequence[str],
    where: pc.Expression | None = None,
) -> pa.Table:
    """The rows of the files where the condition holds; a column that a file lacks is null.

    Raises:
        LakeDamaged: a file is gone, broken, or has another type for a column.
    """
    check_files(table, files)
    if not files:
        return schema.empty_table().select(list(columns))
    try:
        return dataset_of(files, schema).to_table(columns=list(columns), filter=where)
    except (FileNotFoundError, pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise LakeDamaged(
            f"Table {table.name!r} of the lake ({table.uri}) cannot be read: {first_line(error)}"
        ) from error


def unreadable_files(table: TablePath, files: Sequence[str], schema: pa.Schema, columns: Sequence[str]) -> list[str]:
    """Those of the files that are gone or cannot be read; found one by one, so ask only after an error."""
    bad = []
    for file in files:
        try:
            read_files(table, [file], schema, columns)
        except LakeDamaged:
            bad.append(file)
    return bad


def dataset_of(files: Sequence[str], schema: pa.Schema) -> Any:
    """The files as one Arrow dataset."""
    # It imports pandas, half a second that a sink, which reads no file, need not spend.
    import pyarrow.dataset as ds

    if "://" not in files[0]:
        return ds.dataset(list(files), schema=schema, format="parquet", filesystem=pafs.LocalFileSystem())
    system, _ = pafs.FileSystem.from_uri(files[0])
    return ds.dataset([f.split("://", 1)[1] for f in files], schema=schema, format="parquet", filesystem=system)


def arrow_schema(handle: DeltaTable) -> pa.Schema:
    """The table's schema as pyarrow's."""
    return pa.schema(handle.schema().to_arrow())


def read_table(
    table: TablePath, columns: Sequence[str] | None = None, where: pc.Expression | None = None
) -> pa.Table | None:
    """A whole table as it is now, None where there is none."""
    handle = table.open()
    if handle is None:
        return None
    schema = arrow_schema(handle)
    return read_files(table, files_of(handle), schema, columns or schema.names, where)
