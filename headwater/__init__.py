"""Headwater: a streaming feature store. One definition, one number, everywhere.

Importing the package stays light: nothing heavier than the standard library is
loaded until a name is used.
"""

# As in `typing`, which would be half of what this package takes to import: Ctrl-C is only answered after it (__main__.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from headwater.serving.client import Client

__version__ = "0.1.0"
__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> object:
    if name == "Client":
        from headwater.serving.client import Client

        return Client
    raise AttributeError(f"module 'headwater' has no attribute {name!r}. It has: {', '.join(__all__)}.")
