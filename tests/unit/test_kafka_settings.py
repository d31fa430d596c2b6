"""What is declared of Kafka is what the library takes; and who declares none pays nothing for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from confluent_kafka import Producer

from cdp_assets.settings import KafkaInbox
from cdp_resources.home import REPOSITORY
from cdp_resources.kafka.cluster import inbox_topic
from cdp_resources.secrets import MissingSecretError


def test_secrets_are_resolved_for_the_library_and_shown_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    sasl = {"mechanism": "SCRAM-SHA-512", "username": {"env": "KAFKA_USER"}, "password": {"env": "KAFKA_PASSWORD"}}
    declared = KafkaInbox.model_validate({"brokers": ["k-1:9093", "[::1]:9093"], "topic": "cdp", "tls": {}, "sasl": sasl})
    with pytest.raises(MissingSecretError, match="KAFKA_USER"):
        inbox_topic(declared)
    monkeypatch.setenv("KAFKA_USER", "collector")
    monkeypatch.setenv("KAFKA_PASSWORD", "hunter2")
    topic = inbox_topic(declared)
    assert topic.client == {
        "bootstrap.servers": "k-1:9093,[::1]:9093",
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": "collector",
        "sasl.password": "hunter2",
        "log_level": 2,
    }
    assert "hunter2" not in repr(topic)
    Producer(topic.client)


def test_the_library_is_loaded_by_nobody_who_declares_no_kafka() -> None:
    program = "import sys, cdp_cli.main, cdp_cli.run, cdp_server.server, definitions; sys.exit('confluent_kafka' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, timeout=120).returncode == 0
