"""Who declares no Kafka pays nothing for it."""

from __future__ import annotations

import subprocess
import sys

from cdp_resources.home import REPOSITORY


def test_the_library_is_loaded_by_nobody_who_declares_no_kafka() -> None:
    program = "import sys, cdp_cli.main, cdp_cli.run, cdp_server.server, definitions; sys.exit('confluent_kafka' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, timeout=120).returncode == 0
