"""The lake: the warehouse on one machine, Delta tables in a folder or an object store.

`Lake` is the way in. Everything here imports pyarrow and deltalake, so it is imported where it is used.
"""

from headwater.lake.lake import Lake
from headwater.lake.tables import LakeDamaged

__all__ = ["Lake", "LakeDamaged"]
