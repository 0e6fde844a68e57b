"""Where releases go, and how they are read back. Both kinds yield the same: pieces of whole lines, each with an identity."""

import time
from pathlib import Path

from deployment import DATASET

READ_WITHIN_SECONDS = 60


class Files:
    """Destination kind `file`: JSON lines below a folder of `disk`."""

    def __init__(self, root, folder="released", dataset=DATASET):
        self.folder = folder
        self.directory = Path(root) / "disk" / folder / dataset

    def toml(self, name):
        """The gateway's configuration of it."""
        return f"""
[destinations.{name}]
kind         = "file"
directory    = "disk/{self.folder}"
format       = "jsonl"
rotate_after = "PT0.2S"
"""

    def pieces(self):
        """Every released file: its identity and a function that reads it. A file that is still being written has a dot."""
        found = {}
        if self.directory.is_dir():
            for path in self.directory.iterdir():
                if not path.name.startswith("."):
                    status = path.stat()
                    found[(path.name, status.st_size, status.st_mtime_ns)] = path.read_bytes
        return found

    def told(self):
        """What was sent beside files: nothing."""
        return b""

    def close(self):
        """Nothing to close."""


class Kafka:
    """Destination kind `kafka`, exactly once, read as a consumer with `read_committed` sees it: one message is one release."""

    def __init__(self, brokers, topic):
        from confluent_kafka import Consumer, KafkaError, TopicPartition
        from confluent_kafka.admin import AdminClient, NewTopic

        self.brokers, self.topic, self.partition_end = brokers, topic, KafkaError._PARTITION_EOF
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

    def toml(self, name):
        """The gateway's configuration of it."""
        return f"""
[destinations.{name}]
kind         = "kafka"
brokers      = "{self.brokers}"
topic        = "{self.topic}"
format       = "jsonl"
exactly_once = true
progress_topic = "{self.topic}-progress"
"""

    def pieces(self):
        """Every message so far: its identity and a function that reads it."""
        while (message := self.consumer.poll(0.05)) is not None:
            if not message.error():
                value = message.value()
                self.seen[message.offset()] = lambda value=value: value
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
