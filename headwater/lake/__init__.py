"""The lake: the warehouse on one machine, Delta tables in a folder or an object store.

`Lake` is the way in. Everything here imports pyarrow and deltalake, so it is imported where it is used.
"""

from headwater.errors import LakeDamaged
from headwater.lake.lake import Lake

__all__ = ["Lake", "LakeDamaged"]
