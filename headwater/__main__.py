"""The console script `headwater`, which is also `python -m headwater`.

Apart from the command line because that takes tenths of a second to import, and Ctrl-C in the middle of an import would
be a traceback, or another error of whatever was being imported.
"""

import os
import signal


def main() -> None:
    """Run the command line. Before it is there, and when it has ended, Ctrl-C ends the process at once, with 130."""
    listening = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listening:
        signal.signal(signal.SIGINT, _leave)
    from headwater.cli import main as run

    try:
        if listening:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    finally:
        if listening:
            signal.signal(signal.SIGINT, _leave)


def _leave(*_: object) -> None:
    os._exit(130)


if __name__ == "__main__":
    main()
