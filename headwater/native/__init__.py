"""The compiled half of the hot path: a small C library, built with this package where there is a C compiler
(hatch_build.py).

Everything that it does is also done in Python, to the same values; without it the stream path is slower and
nothing else. It knows nothing of Python and is loaded with ctypes, so one build serves every version of Python, and
its functions run beside other threads.

`HEADWATER_NATIVE=0` in the environment leaves it out.
"""

from __future__ import annotations

import ctypes
import logging
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

ABI = 6
"""The signatures that this code calls; the library's `hw_abi` must say the same (native.h, HW_ABI)."""

NAME = "_headwater.so"
_addressof, _view = ctypes.addressof, ctypes.c_char.from_buffer
_log = logging.getLogger("headwater.native")


@cache
def library() -> ctypes.CDLL | None:
    """The compiled library; None where it was not built, is of another version, or is not wanted."""
    if os.environ.get("HEADWATER_NATIVE", "1") == "0":
        return None
    path = Path(__file__).parent / NAME
    try:
        found = ctypes.CDLL(str(path))
        abi = found.hw_abi()
    except (OSError, AttributeError) as error:
        if path.exists():
            _log.warning("The compiled library %s cannot be loaded (%s); going on in Python.", path, error)
        return None
    if abi != ABI:
        _log.warning("The compiled library %s is of another version; going on in Python. Install again.", path)
        return None
    pointer = ctypes.c_void_p
    found.hw_read_json.restype = ctypes.c_int64
    found.hw_read_json.argtypes = [pointer, pointer, ctypes.c_int64, pointer, ctypes.c_int32, *3 * [pointer]]
    found.hw_size.restype = ctypes.c_int64
    found.hw_take.restype = ctypes.c_int64
    found.hw_take.argtypes = [pointer, ctypes.c_int64, *9 * [pointer]]
    found.hw_destroy.restype = None
    found.hw_fold.restype = None
    found.hw_fold.argtypes = [pointer]
    found.hw_measure.restype = None
    found.hw_measure.argtypes = 3 * [pointer]
    found.hw_unpack.restype = None
    found.hw_unpack_row.restype = ctypes.c_int64
    found.hw_unpack_row.argtypes = [
        ctypes.c_char_p, *3 * [ctypes.c_int64], ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p
    ]  # fmt: skip
    found.hw_write.restype = None
    found.hw_write.argtypes = 9 * [pointer]
    found.hw_xxh3.restype = ctypes.c_uint64
    return found


def address_of(array: NDArray[Any]) -> int:
    """Where the items of a contiguous array lie, as `array.ctypes.data` says, in a fifth of its time."""
    try:
        return _addressof(_view(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # what may not be written to, or is empty
        return array.ctypes.data
