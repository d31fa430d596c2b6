"""`cdp serve`: the HTTP face alone, as one process or as several on one port.

What it answers is cdp_server's part; here the declared sources get their write keys, and processes are started and stopped.
"""

from __future__ import annotations

import errno
import ipaddress
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from itertools import chain
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Semaphore
from types import FrameType

import click

from cdp_assets.project import Project, ProjectError, load_tolerant
from cdp_assets.raw_events.layer import number_on
from cdp_assets.raw_events.spec import HttpSource
from cdp_assets.raw_events.webhook_source import WebhookSource
from cdp_assets.run import Run
from cdp_resources import clock
from cdp_resources.home import Home, config_dir
from cdp_resources.inbox import Inbox
from cdp_resources.kafka.cluster import InboxTopic, inbox_topic
from cdp_resources.secrets import MissingSecretError
from cdp_resources.sources.webhooks import BadKeyError
from cdp_server.config import DebugConfig, ServerConfig, SourceEntry, WebhookEntry
from cdp_server.server import serve as serve_http

_STOP_SECONDS = 25.0


def sources_by_key(project: Project) -> dict[str, SourceEntry]:
    """Write key -> source, for every declared source that sends over HTTP; one that is not enabled may do without its key.

    Raises click.ClickException that names every variable that is missing, and sources that share a key or an app id.
    """
    found: dict[str, SourceEntry] = {}
    missing: list[str] = []
    apps: dict[str, str] = {}
    for name, spec in project.sources.items():
        if not isinstance(spec, HttpSource):
            continue
        for app_id in spec.app_ids:
            if app_id in apps:
                raise click.ClickException(f"config/sources/{name}.yaml: app_ids: source {apps[app_id]!r} has {app_id!r} too")
            apps[app_id] = name
        for reference in spec.write_keys:
            try:
                key = reference.resolve()
            except MissingSecretError as error:
                if spec.enabled:
                    missing.append(f"config/sources/{name}.yaml: write_key: {error}")
                continue
            if found.get(key, SourceEntry(name, spec)).name != name:
                raise click.ClickException(f"config/sources/{name}.yaml: write_key: the same key as source {found[key].name!r}")
            found[key] = SourceEntry(name, spec)
    if missing:
        example = missing[0].partition("environment variable ")[2].partition(" ")[0]
        missing.append(f"Set a key of your own choice, such as: export {example}=$(openssl rand -hex 16)")
        raise click.ClickException("\n".join(missing))
    return found


def webhooks(project: Project) -> tuple[WebhookEntry, ...]:
    """Every declared source of webhooks with its secrets; one that is not enabled may do without them.

    Raises click.ClickException that names every variable that is missing, or holds what cannot be a key.
    """
    entries: list[WebhookEntry] = []
    wrong: list[str] = []
    for name, spec in project.sources.items():
        if not isinstance(spec, WebhookSource):
            continue
        secrets: list[str] = []
        for number, secret in enumerate(spec.secrets if spec.enabled else (), start=1):
            place = f"config/sources/{name}.yaml: secrets[{number}]"
            try:
                secrets.append(secret.resolve())
                spec.webhook.signature.key_of(secrets[-1])
            except MissingSecretError as error:
                wrong.append(f"{place}: {error}; the vendor shows the secret where its webhook is set up")
            except BadKeyError as error:
                wrong.append(f"{place}: environment variable {secret.env}: {error}")
        entries.append(WebhookEntry(name, spec, tuple(secrets)))
    if wrong:
        raise click.ClickException("\n".join(wrong))
    return tuple(entries)


def _senders(project: Project) -> tuple[dict[str, SourceEntry], tuple[WebhookEntry, ...]]:
    """Both kinds of sources. Raises click.ClickException with what is wrong with either."""
    sources: dict[str, SourceEntry] = {}
    vendors: tuple[WebhookEntry, ...] = ()
    wrong: list[str] = []
    try:
        sources = sources_by_key(project)
    except click.ClickException as error:
        wrong.append(error.message)
    try:
        vendors = webhooks(project)
    except click.ClickException as error:
        wrong.append(error.message)
    if wrong:
        raise click.ClickException("\n".join(wrong))
    return sources, vendors


class _Network(click.ParamType[str]):
    """A network of IPv4 or IPv6, or one address."""

    name = "network"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(ipaddress.ip_network(value))
        except ValueError:
            pass
        try:
            meant = f"; did you mean {ipaddress.ip_network(value, strict=False)}?"  # it has bits set beyond its length
        except ValueError:
            meant = ""
        raise click.BadParameter(f"{value!r} is no network; networks are such as 10.0.0.0/8 or fd00::/8{meant}", ctx, param)


@click.command(name="serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for every interface.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one.")
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Processes that share the port, one per core at most.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    type=_Network(),
    help="Network of a proxy whose X-Forwarded-For is believed, such as 10.0.0.0/8. May be given several times.",
)
def serve(host: str, port: int, workers: int, trusted_proxies: tuple[str, ...]) -> None:
    """Receive events over HTTP until stopped (SIGTERM or Ctrl-C).

    What is answered 200 is on disk. Write keys come from the environment variables that config/sources names.

    \b
    Example:
      export CDP_WEB_WRITE_KEY=demo-web-key CDP_SERVER_WRITE_KEY=demo-server-key CDP_PAYMENTS_SECRET=demo-secret
      cdp serve --port 8080
      curl -u demo-web-key: -H 'Content-Type: application/json' http://127.0.0.1:8080/v1/track \\
           -d '{"anonymousId": "a1", "event": "Products Searched", "properties": {"query": "jazz"}}'
    """
    project = _project()
    declared = project.settings.collector
    sources, vendors = _senders(project)
    if not sources and not vendors:
        raise click.ClickException(
            f"{config_dir()}/sources declares no source of kind http or webhook: there is nothing to serve"
        )
    home = Home.from_env()
    inbox = Inbox(home.inbox)
    _prove(inbox)
    if home.lake.exists() and not inbox.is_numbered:
        number_on(Run(home, project, clock.now()))
    config = ServerConfig(
        inbox=home.inbox,
        sources=sources,
        webhooks=vendors,
        min_free_bytes=project.settings.min_free_bytes,
        kafka=_topic(project),
        debug=_debug(project),
        trusted_proxies=trusted_proxies,
        reuse_port=workers > 1,
        path_aliases=declared.path_aliases,
        static=None if declared.static is None else (declared.static.path, config_dir() / declared.static.folder),
        consent_categories=tuple(dict.fromkeys(chain.from_iterable(project.consent.category_mapping().values()))),
    )
    try:
        if workers == 1:
            serve_http(config, host, port, on_listening=announce)
        else:
            _serve_several(config, host, port, workers)
    except (OSError, RuntimeError) as error:
        raise click.ClickException(f"cannot serve on {host}:{port}: {error}") from None


def _prove(inbox: Inbox) -> None:
    """Raises OSError when nothing can be written: here, because what a server meets at its start is told by its log alone."""
    try:
        inbox.probe()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # with a full disk it serves, and asks senders to come again
            raise


def _topic(project: Project) -> InboxTopic | None:
    """The topic that is the inbox, when one is declared. Raises click.ClickException for a secret that is missing."""
    if project.settings.inbox.kafka is None:
        return None
    try:
        return inbox_topic(project.settings.inbox.kafka)
    except MissingSecretError as error:
        raise click.ClickException(f"config/settings.yaml: inbox.kafka: {error}") from None


def _debug(project: Project) -> DebugConfig | None:
    """The live debugger, when its token is declared and set."""
    if project.settings.debug_token is None:
        return None
    try:
        token = project.settings.debug_token.resolve()
    except MissingSecretError as error:
        click.echo(f"no live debugger: config/settings.yaml: debug_token: {error}", err=True)
        return None
    return DebugConfig(token, project.plan, dict(project.violations))


def _project() -> Project:
    """What is declared. A mistake that has nothing to do with sources is told, and does not stop the collector.

    Raises ProjectError for mistakes in sources: without a source its senders would be turned away.
    """
    project, mistakes = load_tolerant(config_dir())
    if project is None or any("/sources/" in mistake.file for mistake in mistakes):
        raise ProjectError(mistakes)
    for mistake in mistakes:
        click.echo(f"warning: {mistake}", err=True)
    return project


def announce(host: str, port: int) -> None:
    """Tell that requests are answered; `listening on URL` is what other programs wait for."""
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"listening on http://{shown}:{port}")


def _serve_several(config: ServerConfig, host: str, port: int, workers: int) -> None:
    """Several processes on one port. One that ends unasked ends all: who supervises this process starts it again."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with socket.socket(family, socket.SOCK_STREAM) as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)  # never listens: it only keeps the port, and settles which one port 0 is
        taken = int(reserved.getsockname()[1])
        context = multiprocessing.get_context("spawn")
        ready = context.Semaphore(0)
        processes = [context.Process(target=_work, args=(config, host, taken, ready)) for _ in range(workers)]
        told = _told_to_stop()
        try:
            for process in processes:
                process.start()
            waiting = workers
            while not told and all(process.is_alive() for process in processes):
                if waiting and ready.acquire(timeout=0.2):
                    waiting -= 1
                    if not waiting:
                        announce(host, taken)
                elif not waiting:
                    multiprocessing.connection.wait([process.sentinel for process in processes], timeout=0.2)
            failed = not told
        finally:
            _stop(processes)
    if failed:
        raise click.ClickException("a worker ended by itself; the log says why")


def _work(config: ServerConfig, host: str, port: int, ready: Semaphore) -> None:
    threading.Thread(target=_stop_with_parent, name="parent", daemon=True).start()
    serve_http(config, host, port, on_listening=lambda _host, _port: ready.release())


def _stop_with_parent() -> None:
    """A parent that was killed can't stop its workers, and they would keep the port from who is started in its place."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _told_to_stop() -> Mapping[str, int]:
    told: dict[str, int] = {}

    def stop(number: int, _: FrameType | None) -> None:
        told["signal"] = number

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return told


def _stop(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        if process.pid is not None and process.is_alive():
            process.terminate()
    for process in processes:
        if process.pid is not None:
            process.join(_STOP_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
