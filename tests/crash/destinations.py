"""Where releases go, and how they are read back. Both kinds and all formats yield the same: pieces of whole JSON lines, each with an
identity."""

import functools
import importlib
import time
from pathlib import Path

import formats
from deployment import DATASET

READ_WITHIN_SECONDS = 60


class Files:
    """Destination kind `file`, below a folder of `disk`. Its format is dealt when it is configured, and read off the files' names."""

    def __init__(self, root, folder="released", dataset=DATASET):
        self.folder = folder
        self.directory = Path(root) / "disk" / folder / dataset

    def toml(self, name, deck):
        """The gateway's configuration of it, with a format that a deck deals, or JSON lines without one."""
        return f"""
[destinations.{name}]
kind         = "file"
directory    = "disk/{self.folder}"
format       = "{deck.deal() if deck else "jsonl"}"
rotate_after = "PT0.2S"
"""

    def pieces(self):
        """Every released file: its identity and a function that reads it. A file that is still being written has a dot."""
        found = {}
        if self.directory.is_dir():
            for path in self.directory.iterdir():
                if not path.name.startswith("."):
                    status = path.stat()
                    found[(path.name, status.st_size, status.st_mtime_ns)] = functools.partial(lines, path)
        return found

    def told(self):
        """What was sent beside files: nothing."""
        return b""

    def close(self):
        """Nothing to close."""


def lines(path):
    """The cells of a file."""
    return formats.lines_of_file(path.name, path.read_bytes())


def message_lines(kind, value):
    """The cells of a message."""
    # Of the stubs, which are made when a run begins.
    release_pb2 = importlib.import_module("bailiwick.release.v1.release_pb2") if kind == "protobuf" else None
    return formats.lines_of_message(kind, value, release_pb2)


class Kafka:
    """Destination kind `kafka`, exactly once, read as a consumer with `read_committed` sees it: one message is one release."""

    def __init__(self, brokers, topic, kind):
        from confluent_kafka import Consumer, KafkaError, TopicPartition
        from confluent_kafka.admin import AdminClient, NewTopic

        self.brokers, self.topic, self.kind, self.partition_end = brokers, topic, kind, KafkaError._PARTITION_EOF
        admin = AdminClient({"bootstrap.servers": brokers})
        topics = [NewTopic(topic, 1), NewTopic(f"{topic}-progress", 1, config={"cleanup.policy": "compact"})]
        for created in admin.create_topics(topics).values():
            created.result(30)
        every = {"bootstrap.servers": brokers, "group.id": topic, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
        self.consumer = Consumer({**every, "isolation.level": "read_committed"})
        self.consumer.assign([TopicPartition(topic, 0, 0)])
        # Whoever may read the topics also gets what was never committed.
        self.reader = Consumer({**every, "isolation.level": "read_uncommitted", "enable.partition.eof": True})
        self.reader.assign([TopicPartition(topic, 0, 0), TopicPartition(f"{topic}-progress", 0, 0)])
        self.seen, self.read_to = {}, {}

    def toml(self, name, _deck):
        """The gateway's configuration of it."""
        return f"""
[destinations.{name}]
kind         = "kafka"
brokers      = "{self.brokers}"
topic        = "{self.topic}"
format       = "{self.kind}"
exactly_once = true
progress_topic = "{self.topic}-progress"
"""

    def pieces(self):
        """Every message so far: its identity and a function that reads it."""
        while (message := self.consumer.poll(0.05)) is not None:
            if not message.error():
                self.seen[message.offset()] = functools.partial(message_lines, self.kind, message.value())
        return self.seen

    def told(self):
        """All that was sent to either topic since the last call: keys, values and headers, also of what was never committed."""
        told, deadline = bytearray(), time.monotonic() + READ_WITHIN_SECONDS
        ends = {part.topic: self.reader.get_watermark_offsets(part, READ_WITHIN_SECONDS)[1] for part in self.reader.assignment()}
        while any(self.read_to.get(topic, 0) < end for topic, end in ends.items()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the topics {', '.join(ends)} were not read to their ends")
            message = self.reader.poll(1)
            if message is None:
                continue
            if message.error():
                if message.error().code() == self.partition_end:
                    self.read_to[message.topic()] = message.offset()
                continue
            parts = [message.key(), message.value(), *(part for header in message.headers() or () for part in header)]
            told += b" ".join(part.encode() if isinstance(part, str) else part or b"" for part in parts) + b"\n"
        return told

    def close(self):
        """Leaves the broker."""
        self.consumer.close()
        self.reader.close()
