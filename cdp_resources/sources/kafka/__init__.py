"""Topics of Kafka that other systems write to. Connecting, and taking each message once, is cdp_resources/kafka."""

from cdp_resources.sources.kafka.reading import Reading

__all__ = ["Reading"]
