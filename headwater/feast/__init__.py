"""Feast's SDK on Headwater's stores: the classes that `feature_store.yaml` names.

Loaded on demand, so that naming the package does not import Feast (4.5 s).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.feast.offline_store import OfflineStore, OfflineStoreConfig
    from headwater.feast.online_store import OnlineStore, OnlineStoreConfig

__all__ = ["OfflineStore", "OfflineStoreConfig", "OnlineStore", "OnlineStoreConfig"]

_HOMES = {
    "OfflineStore": "offline_store", "OfflineStoreConfig": "offline_store",
    "OnlineStore": "online_store", "OnlineStoreConfig": "online_store",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'headwater.feast' has no attribute {name!r}")
    return getattr(importlib.import_module(f"headwater.feast.{_HOMES[name]}"), name)
