"""Brokers for tests: librdkafka's own, which speak the protocol over TCP, in a process that can be stopped and told to fail.

They keep messages in memory, at most 5 MB a partition; older ones are then gone, as by retention.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRODUCE = 0
NOT_ENOUGH_REPLICAS, REQUEST_TIMED_OUT, MESSAGE_TOO_LARGE = 19, 7, 10


class Brokers:
    """Running brokers."""

    def __init__(self, process: subprocess.Popen[str], addresses: str) -> None:
        self.process = process
        self.addresses = tuple(addresses.split(","))

    def tell(self, *words: object) -> None:
        """Have them obey; returns when they did."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(*words, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"

    def topic(self, name: str, partitions: int = 2) -> str:
        """Make a topic."""
        self.tell("topic", name, partitions)
        return name

    def fail(self, request: int, error: int, times: int) -> None:
        """Answer this kind of request with an error so many times."""
        self.tell("errors", request, error, times)

    def go_down(self) -> None:
        """Refuse connections."""
        self.tell("down")

    def come_up(self) -> None:
        self.tell("up")

    def slow_down(self, milliseconds: int) -> None:
        """Answer this much later."""
        self.tell("rtt", milliseconds)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """For the body they neither answer nor close connections."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def running(count: int = 1) -> Iterator[Brokers]:
    """Brokers in a process of their own, for the body."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Brokers(process, process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


def _serve(count: int) -> None:
    """Obey what is told on standard input, until it ends."""
    import confluent_kafka

    found = Path(confluent_kafka.__file__).parent.parent.glob("confluent_kafka.libs/librdkafka-*.so*")
    library = ctypes.CDLL(str(next(found)))
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.rd_kafka_new.restype = pointer
    library.rd_kafka_new.argtypes = [ctypes.c_int, pointer, text, ctypes.c_size_t]
    library.rd_kafka_mock_cluster_new.restype = pointer
    library.rd_kafka_mock_cluster_new.argtypes = [pointer, ctypes.c_int]
    library.rd_kafka_mock_cluster_bootstraps.restype = text
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [pointer]
    library.rd_kafka_mock_topic_create.argtypes = [pointer, text, ctypes.c_int, ctypes.c_int]
    library.rd_kafka_mock_push_request_errors_array.argtypes = [pointer, ctypes.c_int16, ctypes.c_size_t, pointer]
    library.rd_kafka_mock_broker_set_rtt.argtypes = [pointer, ctypes.c_int32, ctypes.c_int]
    for name in ("down", "up"):
        getattr(library, f"rd_kafka_mock_broker_set_{name}").argtypes = [pointer, ctypes.c_int32]
    handle = library.rd_kafka_new(0, None, None, 0)
    cluster = library.rd_kafka_mock_cluster_new(handle, count)
    print(library.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
    for line in sys.stdin:
        match line.split():
            case ["topic", name, partitions]:
                failed = library.rd_kafka_mock_topic_create(cluster, name.encode(), int(partitions), count)
            case ["errors", request, error, times]:
                errors = (ctypes.c_int * int(times))(*[int(error)] * int(times))
                library.rd_kafka_mock_push_request_errors_array(cluster, int(request), int(times), errors)
                failed = 0
            case ["down" | "up" as word]:
                failed = sum(getattr(library, f"rd_kafka_mock_broker_set_{word}")(cluster, each + 1) for each in range(count))
            case ["rtt", milliseconds]:
                failed = sum(library.rd_kafka_mock_broker_set_rtt(cluster, each + 1, int(milliseconds)) for each in range(count))
            case _:
                failed = 1
        print("failed" if failed else "done", flush=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
