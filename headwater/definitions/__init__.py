"""What a user writes: sources, views, operators and expectations, which are Feast objects or go into them.

Beside `headwater/feast/` the only package that imports Feast.
"""

from headwater.definitions.expectations import Between, InSet, NotNull
from headwater.definitions.operators import (
    ApproxDistinct,
    ApproxQuantile,
    Count,
    Distinct,
    First,
    Last,
    LastN,
    Latest,
    Max,
    Mean,
    Min,
    Stddev,
    Sum,
    TopK,
    Var,
)
from headwater.definitions.sources import SnapshotSource, StreamSource, Vector
from headwater.definitions.views import BatchView, StreamView

__all__ = [
    "ApproxDistinct",
    "ApproxQuantile",
    "BatchView",
    "Between",
    "Count",
    "Distinct",
    "First",
    "InSet",
    "Last",
    "LastN",
    "Latest",
    "Max",
    "Mean",
    "Min",
    "NotNull",
    "SnapshotSource",
    "Stddev",
    "StreamSource",
    "StreamView",
    "Sum",
    "TopK",
    "Var",
    "Vector",
]
