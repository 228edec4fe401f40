"""Headwater: a streaming feature store. One definition, one number, everywhere.

Importing the package stays light: nothing heavier than the standard library is
loaded until a name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.serving.client import Client

__version__ = "0.1.0"
__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from headwater.serving.client import Client

        return Client
    raise AttributeError(f"module 'headwater' has no attribute {name!r}. It has: {', '.join(__all__)}.")
