"""The conditions of features, as text: a plan keeps them as trees."""

from __future__ import annotations

from headwater.plans.plan import StreamView, View


def feature_conditions(view: View) -> dict[str, str]:
    """Feature name -> its own `where` as SQL, for the features that have one."""
    if not isinstance(view, StreamView):
        return {}
    conditioned = [f for f in view.features if f.where is not None]
    if not conditioned:
        return {}
    from headwater.expressions.sql import to_sql

    return {f.name: to_sql(f.where, "duckdb") for f in conditioned if f.where is not None}
