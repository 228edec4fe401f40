"""Compiles headwater/native/*.c while the package is built or installed; `python hatch_build.py` does it in place.

Without a C compiler the package is built without the compiled library, and works without it (headwater/native).
`HEADWATER_NATIVE=0` in the environment leaves it out on purpose.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "headwater" / "native"
LIBRARY = FOLDER / "_headwater.so"
FLAGS = ("-O3", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")


def compile_library() -> bool:
    """Whether the library was made; what is in the way is said on standard error."""
    if os.environ.get("HEADWATER_NATIVE", "1") == "0":
        return False
    compiler = (
        shlex.split(os.environ.get("CC", "")) or [name for name in ("cc", "gcc", "clang") if shutil.which(name)][:1]
    )
    if not compiler:
        print(
            "No C compiler (cc, gcc, clang): Headwater's stream path will run in Python alone, slower.", file=sys.stderr
        )
        return False
    # Written beside and renamed: a process that has the old one loaded keeps it.
    scratch = LIBRARY.with_suffix(f".{os.getpid()}.tmp")
    command = [*compiler, *FLAGS, *map(str, sorted(FOLDER.glob("*.c"))), "-o", str(scratch)]
    try:
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode == 0:
            scratch.replace(LIBRARY)
            return True
        print(f"{shlex.join(command)} failed:\n{made.stderr}Headwater will run in Python alone.", file=sys.stderr)
    except OSError as error:
        print(f"{compiler[0]} cannot be run ({error}): Headwater will run in Python alone.", file=sys.stderr)
    finally:
        scratch.unlink(missing_ok=True)
    LIBRARY.unlink(missing_ok=True)
    return False


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # Run by hand.
    pass
else:

    class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
        """Called by hatchling before a wheel, and before an editable install."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Compile; a wheel with the library in it serves this platform, and every Python."""
            if self.target_name == "wheel" and compile_library() and version == "standard":
                build_data["pure_python"] = False
                build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


if __name__ == "__main__":
    sys.exit(not compile_library())
