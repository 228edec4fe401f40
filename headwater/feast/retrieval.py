"""Feast's handle of a read that has not run yet: it runs when a table or DataFrame is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores import offline_store
from feast.infra.offline_stores.file_source import FileSource, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView

from headwater.errors import UsageError
from headwater.history.files import write_parquet


class RetrievalJob(offline_store.RetrievalJob):  # type: ignore[misc]
    """`run` gives the table without on-demand features; Feast's base class adds those."""

    def __init__(
        self,
        run: Callable[[], pa.Table],
        *,
        repo_path: Path | None = None,
        full_feature_names: bool = False,
        on_demand_feature_views: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._run = run
        self._repo_path = repo_path
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = on_demand_feature_views or []
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether output columns are VIEW__FEATURE."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """What Feast computes from the columns read."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """The features, keys and times asked for."""
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._run()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._run().to_pandas()
        return frame

    def persist(self, storage: Any, allow_overwrite: bool | None = False, timeout: int | None = None) -> None:
        """Writes the result to the Parquet file of a SavedDatasetFileStorage.

        Raises:
            UsageError: another kind of storage.
            SavedDatasetLocationAlreadyExists: the file is there, and may not be overwritten.
        """
        if not isinstance(storage, SavedDatasetFileStorage):
            raise UsageError(f"A training set is saved to a SavedDatasetFileStorage, got {type(storage).__name__}.")
        uri = storage.file_options.uri
        path = Path(FileSource.get_uri_for_file_path(self._repo_path, uri).removeprefix("file://"))
        if path.exists() and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=uri)
        write_parquet(self.to_arrow(), path)
