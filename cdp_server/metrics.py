"""What the server counts about itself, and its text for Prometheus. No label holds a value that a person sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """Counters since the process began, and gauges that are asked when the text is made."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.refused_deliveries: Counter[tuple[str, str]] = Counter()
        self.replayed: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.received_bytes = 0
        self.written_bytes = 0
        self.failed_commits = 0
        self._commits = [0] * (len(_BUCKETS) + 1)
        self._commit_seconds = 0.0
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []

    def count_request(self, route: str, status: int) -> None:
        self.requests[route, status] += 1

    def observe_commit(self, seconds: float, size: int) -> None:
        """One group was written and synced."""
        self.written_bytes += size
        self._commit_seconds += seconds
        place = 0
        while place < len(_BUCKETS) and seconds > _BUCKETS[place]:
            place += 1
        self._commits[place] += 1

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show what `value` returns whenever the metrics are asked for."""
        self._gauges.append((name, text, value))

    def text(self) -> bytes:
        """Everything in Prometheus' text format 0.0.4."""
        lines: list[str] = []

        def family(name: str, kind: str, text: str) -> None:
            lines.extend((f"# HELP {name} {text}", f"# TYPE {name} {kind}"))

        family("cdp_http_requests_total", "counter", "Requests answered, by route and status.")
        for (route, status), count in sorted(self.requests.items()):
            lines.append(f'cdp_http_requests_total{{route="{_label(route)}",status="{status}"}} {count}')
        for name, text, counter in (
            ("cdp_events_accepted_total", "Messages acknowledged, by source.", self.accepted),
            ("cdp_events_refused_total", "Messages refused and kept with a reason, by source.", self.refused),
            ("cdp_webhook_replayed_total", "Events of webhooks that had just been stored, by source.", self.replayed),
            (
                "cdp_events_dropped_total",
                "Messages not kept because their sender asked not to be tracked, by source.",
                self.dropped,
            ),
        ):
            family(name, "counter", text)
            lines.extend(f'{name}{{source="{_label(source)}"}} {count}' for source, count in sorted(counter.items()))
        family("cdp_webhook_deliveries_refused_total", "counter", "Deliveries not proven, kept nowhere, by source and reason.")
        for (source, reason), count in sorted(self.refused_deliveries.items()):
            lines.append(f'cdp_webhook_deliveries_refused_total{{source="{_label(source)}",reason="{reason}"}} {count}')
        for name, text, value in (
            ("cdp_received_bytes_total", "Bytes of request bodies as sent.", self.received_bytes),
            ("cdp_written_bytes_total", "Bytes written to the inbox.", self.written_bytes),
            ("cdp_commit_failures_total", "Groups that could not be written.", self.failed_commits),
        ):
            family(name, "counter", text)
            lines.append(f"{name} {value}")
        family("cdp_commit_seconds", "histogram", "Time to write and sync one group.")
        total = 0
        for limit, count in zip((*_BUCKETS, "+Inf"), self._commits, strict=True):
            total += count
            lines.append(f'cdp_commit_seconds_bucket{{le="{limit}"}} {total}')
        lines.append(f"cdp_commit_seconds_sum {self._commit_seconds:.6f}")
        lines.append(f"cdp_commit_seconds_count {total}")
        for name, text, read in self._gauges:
            family(name, "gauge", text)
            lines.append(f"{name} {read():g}")
        return ("\n".join(lines) + "\n").encode()


def _label(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
