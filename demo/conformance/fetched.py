"""Source distributions from the package index that pip is set to, for test data that only they hold. Checked by hash and kept beside the environment."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

TIMEOUT = 300


class FetchError(Exception):
    """The package index does not give what a suite needs."""


def source_of(name: str, version: str, sha256: str) -> Path:
    """The folder with the unpacked source distribution of a package. Raises FetchError."""
    place = Path(sys.prefix) / "conformance"
    folder = place / f"{name}-{version}"
    if folder.exists():
        return folder
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as work:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", name, "--dest", work, f"{name}=={version}"]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise FetchError(f"pip could not download the source of {name} {version}: {error}") from None
        [archive] = Path(work).glob("*.tar.gz")
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != sha256:
            raise FetchError(f"the source of {name} {version} has the hash {found}, and should have {sha256}")
        with tarfile.open(archive) as packed:
            packed.extractall(work, filter="data")
        shutil.move(Path(work) / f"{name}-{version}", folder)
    return folder
