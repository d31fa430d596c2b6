"""What takes the place of the outside world in the demo: write keys, and a vendor for every destination with an HTTP address.

Which variables a project needs for that is worked out here; processes are started elsewhere. `received` asks a vendor what it holds.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from cdp_assets.project import Project
from cdp_assets.raw_events.spec import HttpSource
from cdp_assets.raw_events.webhook_source import WebhookSource
from cdp_resources.destinations.files.destination import FilesSettings
from cdp_resources.destinations.plugin import secret_variables
from cdp_resources.destinations.webhook.destination import WebhookSettings
from cdp_resources.secrets import SecretRef

SIGNING_SECRET = "demo-signing-secret"  # noqa: S105 - it guards invented people on loopback
SECRET_VARIABLE = "CDP_STAND_IN_SECRET"  # noqa: S105
"""Where the vendor's own process finds SIGNING_SECRET."""
VENDOR_READY = r"listening on (\S+?);"
"""What demo.vendors prints when it answers; the group is its address."""
_TIMEOUT = 10.0


def write_keys(project: Project) -> dict[str, tuple[str, str]]:
    """Source -> (environment variable, key of the demo), for every source that sends over HTTP."""
    return {
        name: (spec.write_keys[0].env, f"demo-{name}-key")
        for name, spec in project.sources.items()
        if isinstance(spec, HttpSource)
    }


def collector_variables(project: Project) -> dict[str, str]:
    """Environment variable -> secret of the demo, for every key and every webhook secret without which the collector does not start."""
    found: dict[str, str] = {}
    for name, spec in project.sources.items():
        if isinstance(spec, HttpSource):
            found |= {key.env: f"demo-{name}-key{number or ''}" for number, key in enumerate(spec.write_keys)}
        elif isinstance(spec, WebhookSource):
            secret = base64.b64encode(f"demo-{name}-secret".encode()).decode()  # some vendors' secrets are base64
            found |= {key.env: f"whsec_{secret}" for key in spec.secrets}
    return found


def webhook_secret(project: Project, source: str) -> str:
    """What the demo's vendor signs the deliveries of a webhook with. Raises KeyError where there is no such source."""
    spec = project.sources[source]
    if not isinstance(spec, WebhookSource):
        raise KeyError(source)
    return collector_variables(project)[spec.secrets[0].env]


def vendor_variables(project: Project, url: str) -> dict[str, dict[str, str]]:
    """Destination -> environment variables that make it deliver to a stand-in at `url`; only those whose address is a variable."""
    found: dict[str, dict[str, str]] = {}
    for name, spec in project.destinations.items():
        if isinstance(spec.settings, WebhookSettings) and isinstance(spec.settings.url, SecretRef):
            variables = secret_variables(spec.settings)
            found[name] = {env: url if field == "url" else SIGNING_SECRET for field, env in variables.items()}
    return found


def real_places(project: Project) -> Iterator[str]:
    """Destinations that no stand-in can take the place of: invented people must not be sent there."""
    replaced = vendor_variables(project, "")
    for name, spec in project.destinations.items():
        is_inside = isinstance(spec.settings, FilesSettings) and not Path(spec.settings.folder or "").expanduser().is_absolute()
        if name not in replaced and not is_inside:
            yield name


def received(vendor_url: str) -> Mapping[str, Mapping[str, Any]]:
    """Sync -> key -> record that the vendor at `vendor_url` holds now. Raises requests.RequestException."""
    parts = urlsplit(vendor_url)
    answer = requests.get(f"{parts.scheme}://{parts.netloc}/_state", timeout=_TIMEOUT)
    answer.raise_for_status()
    state: dict[str, dict[str, Any]] = answer.json()
    return state
