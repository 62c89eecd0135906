"""What the sandbox saw of its client: requests, token calls, concurrency and pace."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from loader.sandbox.api import Kind
from loader.sandbox.quota import Window


def _windows() -> list[Window]:
    return [Window(1.0), Window(2.0), Window(10.0), Window(60.0)]


@dataclass(slots=True)
class Stats:
    """Counted while requests come and go. Wall times are unix seconds, taken on arrival.

    `peak_in_flight` is what the server held at once. Without latency it answers a request as soon as it is read, so the
    peak stays near 1 however many the client has on the way: to judge a client's concurrency, set a latency.
    """

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By path without query, and status or the way that the connection was cut ("reset", "lost", ...)."""
    token_calls: list[float] = field(default_factory=list)
    arrivals: Counter[Kind] = field(default_factory=Counter)
    in_flight: Counter[Kind] = field(default_factory=Counter)
    peak_in_flight: Counter[Kind] = field(default_factory=Counter)
    windows: list[Window] = field(default_factory=_windows)

    def arrive(self, kind: Kind, now: float) -> int:
        """Count an arrival; its number among those of its kind, from 0."""
        for window in self.windows:
            window.add(now)
        if kind == "token":
            self.token_calls.append(now)
        self.arrivals[kind] += 1
        return self.arrivals[kind] - 1

    @contextmanager
    def on_the_wire(self, kind: Kind) -> Iterator[None]:
        """One more request in flight, for as long as this lasts."""
        self.in_flight[kind] += 1
        self.peak_in_flight[kind] = max(self.peak_in_flight[kind], self.in_flight[kind])
        try:
            yield
        finally:
            self.in_flight[kind] -= 1

    def as_json(self) -> dict[str, object]:
        by_path: dict[str, dict[str, int]] = {}
        for (path, ending), count in sorted(self.requests.items()):
            by_path.setdefault(path, {})[ending] = count
        return {
            "requests": by_path,
            "token_calls": self.token_calls,
            "peak_data_requests": self.peak_in_flight["data"],
            "peak_token_calls": self.peak_in_flight["token"],
            "peak_arrivals": {f"{window.window_s:g}s": window.peak for window in self.windows},
        }
