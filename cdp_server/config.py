"""What the HTTP face is given to work with: plain data, secrets resolved by the caller. No file or variable is read here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cdp_assets.raw_events.spec import HttpSource
from cdp_assets.raw_events.webhook_source import WebhookSource
from cdp_resources import clock
from cdp_resources.kafka.cluster import InboxTopic
from cdp_server.visitor import Visitors

if TYPE_CHECKING:
    from cdp_assets.enriched_events.spec import TrackingPlan, ViolationPolicy


@dataclass(frozen=True)
class SourceEntry:
    """A source that sends over HTTP, under its name."""

    name: str
    spec: HttpSource

    @cached_property
    def looks_closer(self) -> bool:
        """Whether more than the message is wanted of a request: headers, cookies, signals."""
        spec = self.spec
        signals = {spec.signals.do_not_track, spec.signals.global_privacy_control}
        return bool(spec.keep_headers or spec.keep_cookies or spec.id_cookie or signals != {"ignore"})

    @cached_property
    def visitors(self) -> Visitors:
        """What reads that."""
        return Visitors(self.spec)


@dataclass(frozen=True)
class WebhookEntry:
    """A vendor that posts signed deliveries, under its source's name."""

    name: str
    spec: WebhookSource
    secrets: tuple[str, ...] = field(repr=False)
    """Their values, all good at the same time; none for a source that is not enabled."""


@dataclass(frozen=True)
class DebugConfig:
    """The live debugger: who may see it, and what it judges events by."""

    token: str = field(repr=False)
    """The bearer token of those who may look."""
    plan: TrackingPlan
    violations: Mapping[str, ViolationPolicy]


@dataclass(frozen=True)
class ServerConfig:
    """One collector process. Sizes in bytes, times in seconds."""

    inbox: Path
    """Folder of the inbox."""
    sources: Mapping[str, SourceEntry]
    """Write key -> source."""
    webhooks: tuple[WebhookEntry, ...] = ()
    """Sources whose deliveries are signed."""
    trusted_proxies: tuple[str, ...] = field(default=())
    """Networks (`10.0.0.0/8`) whose X-Forwarded-For is believed; from anybody else the peer's address is the client's."""
    max_pending_bytes: int = 64 * 1024 * 1024
    """Most bytes that wait in memory, of bodies being read and of lines being written; beyond it requests are answered 429."""
    segment_max_bytes: int = 64 * 1024 * 1024
    """A segment is sealed before it grows over this."""
    segment_max_age: float = 60.0
    """A segment is sealed when it is this old."""
    body_timeout: float = 30.0
    """Longest wait for the rest of a body that has begun to arrive."""
    reuse_port: bool = False
    """Let several collector processes listen on one port; the kernel spreads the connections."""
    min_free_bytes: int | None = None
    """While the disk of the inbox has less free, requests are answered 429. None: 512 MB, but at most a twentieth of the disk."""
    kafka: InboxTopic | None = None
    """The topic that lines are written to, in place of the folder; None: the folder."""
    debug: DebugConfig | None = None
    """The live debugger; None: there is none."""
    now: Callable[[], int] = clock.microseconds
    """What time it is, in microseconds since 1970 UTC."""
    path_aliases: Mapping[str, str] = field(default_factory=dict)
    """Other name of a path, or of the beginning of paths -> the path."""
    static: tuple[str, Path] | None = None
    """Path below which files are served, and their folder."""
    consent_categories: tuple[str, ...] = ()
    """What browser SDKs are told that people can agree to."""
