"""Packages of Debian, for test data that only they hold: fetched by apt-get, which checks their signatures, and kept beside the environment."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from demo.conformance.fetched import TIMEOUT, FetchError


def package(name: str) -> Path:
    """The folder with the unpacked files of a package. Raises FetchError."""
    place = Path(sys.prefix) / "conformance"
    folder = place / f"debian-{name}"
    if folder.exists():
        return folder
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as work:
        Path(work).chmod(0o755)  # apt-get fetches as a user of its own
        try:
            _run(["apt-get", "download", "-qq", name], work)
            [archive] = Path(work).glob("*.deb")
            _run(["dpkg-deb", "-x", str(archive), "unpacked"], work)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise FetchError(f"apt-get could not fetch the Debian package {name} ({type(error).__name__})") from None
        (Path(work) / "unpacked").rename(folder)
    return folder


def _run(command: list[str], folder: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=TIMEOUT)
