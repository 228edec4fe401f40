"""What several commands ask for in the same way: features or a service, and a time."""

from __future__ import annotations

from headwater.errors import UsageError


def one_of_features_and_service(features: str | None, service: str | None) -> None:
    """Exactly one of --features and --service has to be given.

    Raises:
        UsageError: neither, or both.
    """
    if (features is None) == (service is None):
        got = "neither" if features is None else "both"
        raise UsageError(f"Say which features, by either --features VIEW:FEATURE,… or --service NAME; got {got}.")


def parse_time(text: str, option: str) -> int:
    """Microseconds of a time on the command line: RFC 3339 or a date, UTC without a zone, or microseconds.

    Raises:
        UsageError: none of them; the message names the option.
    """
    from headwater.events.timestamps import parse_timestamp

    for item in (int(text) if text.lstrip("-").isdecimal() else text, f"{text}T00:00:00"):
        micros = parse_timestamp(item)
        if micros is not None:
            return micros
    raise UsageError(
        f"{option} {text!r}: expected a time such as 2011-12-09T12:50:00Z, or a date such as 2011-12-09 "
        f"(UTC where there is no zone)."
    )
