"""Feast's offline store on the lake: training sets through `FeatureStore.get_historical_features`.

Apart from `history/` because Feast's interface ends here: inside are plans, Arrow tables and
columns. A repository names it by `offline_store: {type: headwater.feast.OfflineStore}`. Views
of ours are read from the lake; Feast's own FeatureViews over a Parquet FileSource by the same
as-of join.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
from feast.feature_view import FeatureView
from feast.infra.offline_stores import offline_store
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.utils import _get_requested_feature_views_to_features_dict, _get_requested_on_demand_feature_views

from headwater.definitions.registry import plan_of_registry
from headwater.errors import UsageError
from headwater.feast import sources
from headwater.feast.retrieval import RetrievalJob
from headwater.history.log import LakeWarehouse
from headwater.history.spine import TIME
from headwater.history.training_set import ViewRead, training_set
from headwater.plans.plan import Plan


class OfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """What stands under `offline_store` in feature_store.yaml."""

    type: Literal["headwater.feast.OfflineStore"] = "headwater.feast.OfflineStore"
    lake: str | None = None
    """A folder, relative to the repository, or an object store's URL; `.headwater/lake` where left out."""
    engine: Literal["local"] = "local"


class OfflineStore(offline_store.OfflineStore):  # type: ignore[misc]
    """Feast's interface; every method is told the configuration anew, so there is no state."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        **others: Any,
    ) -> RetrievalJob:
        """A job that joins the features to the spine, `entity_df`: a DataFrame, or SQL over lake tables.

        Raises:
            UsageError: no spine, or one that lacks a column or has it in another type.
        """
        if entity_df is None or others:
            raise UsageError(
                "Headwater's offline store needs a spine: pass entity_df, a DataFrame (or SQL) with the join keys and "
                f"'{TIME}'. Got {'no entity_df' if entity_df is None else 'the options ' + ', '.join(others)}."
            )
        on_demand = _get_requested_on_demand_feature_views(feature_refs, project, registry)
        plan = plan_of_registry(registry, project)
        warehouse = LakeWarehouse(sources.lake_of(config))
        spine = _spine(entity_df, plan, warehouse)
        time = _time_column(spine)
        reads, order = _reads(config, plan, feature_views, feature_refs, on_demand, full_feature_names)
        return RetrievalJob(
            lambda: training_set(plan, warehouse, spine, reads, time=time, order=order),
            repo_path=config.repo_path,
            full_feature_names=full_feature_names,
            on_demand_feature_views=on_demand,
            metadata=_metadata(spine, time, feature_refs),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """A job that gives the newest row of each key between the dates (both included)."""

        def run() -> pa.Table:
            rows = sources.rows_of(config, data_source, timestamp_field, start_date, end_date)
            newest = sources.newest_of_each_key(rows, join_key_columns, timestamp_field, created_timestamp_column)
            return newest.select(
                _columns(join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column)
            )

        return RetrievalJob(run, repo_path=config.repo_path)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """A job that gives all rows between the dates (both included; None: open)."""

        def run() -> pa.Table:
            rows = sources.rows_of(config, data_source, timestamp_field, start_date, end_date)
            return rows.select(
                _columns(join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column)
            )

        return RetrievalJob(run, repo_path=config.repo_path)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Appends rows to the Parquet file of a Feast view; refused for views of ours.

        Raises:
            UsageError: a stream view's values come from events, a BatchView's from its query.
        """
        if not isinstance(feature_view.batch_source, FileSource):
            raise UsageError(
                f"View {feature_view.name!r} cannot be written by hand: its values follow from its definition, and a "
                f"row written beside it could not be proven. Send events to its topic ('headwater produce'), or run "
                f"'headwater materialize' for a BatchView."
            )
        sources.append_to_file(config, feature_view.batch_source, table)
        if progress is not None:
            progress(len(table))


def _spine(entity_df: pd.DataFrame | str, plan: Plan, warehouse: LakeWarehouse) -> pa.Table:
    if isinstance(entity_df, str):
        return warehouse.query(plan, entity_df)
    try:
        return pa.Table.from_pandas(entity_df, preserve_index=False)
    except pa.ArrowException as error:
        raise UsageError(f"The spine (entity_df) has a column of mixed types: {error}") from error


def _time_column(spine: pa.Table) -> str:
    """`event_timestamp`, or the only timestamp there is (Feast's rule)."""
    if TIME in spine.column_names:
        return TIME
    found = [f.name for f in spine.schema if pa.types.is_timestamp(f.type)]
    return found[0] if len(found) == 1 else TIME


def _reads(
    config: RepoConfig,
    plan: Plan,
    feature_views: list[FeatureView],
    feature_refs: list[str],
    on_demand: list[OnDemandFeatureView],
    full_feature_names: bool,
) -> tuple[list[ViewRead], list[str]]:
    """What is read of each view, and the output columns in the order of the references."""
    grouped, _ = _get_requested_feature_views_to_features_dict(feature_refs, feature_views, on_demand)
    named: dict[str, str] = {}
    reads = []
    for view, features in grouped.items():
        alias = view.projection.name_to_use()
        outputs = {f: f"{alias}__{f}" if full_feature_names else f for f in features}
        named |= {f"{alias}:{f}": output for f, output in outputs.items()}
        reads.append(ViewRead(sources.view_of(config, plan, view), outputs, dict(view.projection.join_key_map)))
    return reads, [named[ref] for ref in feature_refs if ref in named]


def _metadata(spine: pa.Table, time: str, feature_refs: list[str]) -> RetrievalMetadata:
    import pyarrow.compute as pc

    least, most = None, None
    if time in spine.column_names and pa.types.is_timestamp(spine[time].type):
        range_of = pc.min_max(spine[time]).as_py()
        least, most = range_of["min"], range_of["max"]
    keys = [n for n in spine.column_names if n != time]
    return RetrievalMetadata(features=feature_refs, keys=keys, min_event_timestamp=least, max_event_timestamp=most)


def _columns(keys: list[str], features: list[str], time: str, created: str | None) -> list[str]:
    return list(dict.fromkeys([*keys, *features, time, *([created] if created else [])]))
