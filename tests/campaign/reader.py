"""A user of `headwater serve`: reads random keys all the time, and notes when it was refused."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import httpx

from tests.campaign.events import PRODUCTS


class Reader(threading.Thread):
    """Asks for rows of every view. `present` counts rows that were there, each of them one receipt; `refused` are
    the (begin, seconds) in which it got no answer; `shapes` the sets of columns that spend came with."""

    def __init__(self, address: Callable[[], str | None], customers: int, rows_a_second: float, seed: int) -> None:
        super().__init__(daemon=True)
        self._address, self._customers, self._every = address, customers, 0.25
        self._rows = max(1, round(rows_a_second * self._every / 2))
        self._pick, self._over = random.Random(seed), threading.Event()
        self.present = self.requests = 0
        self.refused: list[tuple[float, float]] = []
        self.why: set[str] = set()
        self.shapes: set[tuple[str, ...]] = set()
        self._since: float | None = None

    def run(self) -> None:
        """Until `stop`."""
        with httpx.Client(timeout=5) as http:
            while not self._over.wait(self._every):
                self._ask(http, ["spend", "basket"], ["customer", "product"], self._rows)
                if self._pick.random() < 0.3:
                    self._ask(http, ["seen"], ["customer"], self._rows)

    def stop(self) -> None:
        """Read no more."""
        self._over.set()
        if self.ident is not None:
            self.join()

    def seconds(self, since: float) -> float:
        """How long it was refused after that moment (monotonic), in all."""
        now = time.monotonic()
        going = [(self._since, now - self._since)] if self._since is not None else []
        return sum(length for began, length in [*self.refused, *going] if began >= since)

    def _ask(self, http: httpx.Client, features: list[str], keys: list[str], rows: int) -> None:
        pick = self._pick
        drawn = {
            "customer": [pick.randrange(self._customers) for _ in range(rows)],
            "product": [f"p{pick.randrange(PRODUCTS)}" for _ in range(rows)],
        }
        self.requests += 1
        try:
            body = {"features": features, "entities": {k: drawn[k] for k in keys}}
            answer = http.post(f"{self._address()}/v1/features", json=body)
            answer.raise_for_status()
        except httpx.HTTPStatusError as error:
            self._failed(error.response.json().get("error", str(error.response.status_code)))
            return
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._failed(type(error).__name__)
            return
        if self._since is not None:
            self.refused.append((self._since, time.monotonic() - self._since))
            self._since = None
        told = answer.json()
        self.present += sum(s.count("PRESENT") for s in told["statuses"].values())
        if "spend" in features:
            self.shapes.add(tuple(c for c in told["columns"] if c.startswith("spend__")))

    def _failed(self, why: str) -> None:
        self.why.add(why)
        if self._since is None:
            self._since = time.monotonic()
