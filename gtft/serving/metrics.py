"""Figures of the server in Prometheus' text format 0.0.4. No label holds anything that a client wrote."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Seconds: from a refusal to the longest answer.
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

_COUNTERS = {
    "gtft_requests_total": "Requests by protocol and outcome.",
    "gtft_tokens_total": "Tokens read (prompt) and written (answer).",
    "gtft_fallbacks_total": "Requests of a role that the model did not answer, by cause: the previous agent is asked, where there is one.",
    "gtft_denied_total": "Requests that were not let in, by status.",
    "gtft_answers_not_recorded_total": "Answers of a role that could not be written down.",
}
_GAUGES = {
    "gtft_up": "1 when models are loaded.",
    "gtft_queue_length": "Requests that were taken and are not begun.",
    "gtft_in_flight": "Requests that are being answered or wait.",
}
_SECONDS = "gtft_request_seconds"


class Metrics:
    """Counts of this process, from its start."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
        self._seen: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Add to one of the counters above."""
        key = (name, tuple(sorted(labels.items())))
        self._counts[key] = self._counts.get(key, 0) + by

    def observe(self, protocol: str, seconds: float) -> None:
        seen = self._seen.setdefault(protocol, [0] * (len(BUCKETS) + 1))
        seen[next((n for n, most in enumerate(BUCKETS) if seconds <= most), len(BUCKETS))] += 1
        self._sums[protocol] = self._sums.get(protocol, 0.0) + seconds

    def write(self, gauges: Mapping[str, int]) -> str:
        lines: list[str] = []
        for name, about in _COUNTERS.items():
            lines += _head(name, about, "counter")
            found = sorted((k[1], n) for k, n in self._counts.items() if k[0] == name)
            lines += [f"{name}{_label(labels)} {n}" for labels, n in found]
        for name, about in _GAUGES.items():
            lines += [*_head(name, about, "gauge"), f"{name} {gauges.get(name, 0)}"]
        lines += _head(_SECONDS, "Seconds from a request to the end of its answer.", "histogram")
        for protocol, seen in sorted(self._seen.items()):
            bounds = [*map(str, BUCKETS), "+Inf"]
            for most, n in zip(bounds, accumulate(seen), strict=True):
                labels = (("protocol", protocol), ("le", most))
                lines.append(f"{_SECONDS}_bucket{_label(labels)} {n}")
            only = _label((("protocol", protocol),))
            lines.append(f"{_SECONDS}_sum{only} {self._sums[protocol]:.6f}")
            lines.append(f"{_SECONDS}_count{only} {sum(seen)}")
        return "\n".join(lines) + "\n"


def _head(name: str, about: str, kind: str) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]


def _label(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{k}="{_escape(v)}"' for k, v in labels) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
