"""Where releases go, and how they are read back. Both kinds yield the same: pieces of whole lines, each with an identity."""

from pathlib import Path

from deployment import DATASET


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

    def close(self):
        """Nothing to close."""


class Kafka:
    """Destination kind `kafka`, exactly once, read as a consumer with `read_committed` sees it: one message is one release."""

    def __init__(self, brokers, topic):
        from confluent_kafka import Consumer, TopicPartition
        from confluent_kafka.admin import AdminClient, NewTopic

        self.brokers, self.topic = brokers, topic
        admin = AdminClient({"bootstrap.servers": brokers})
        topics = [NewTopic(topic, 1), NewTopic(f"{topic}-progress", 1, config={"cleanup.policy": "compact"})]
        for created in admin.create_topics(topics).values():
            created.result(30)
        self.consumer = Consumer({"bootstrap.servers": brokers, "group.id": topic, "isolation.level": "read_committed",
                                  "enable.auto.commit": False, "auto.offset.reset": "earliest"})
        self.consumer.assign([TopicPartition(topic, 0, 0)])
        self.seen = {}

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

    def close(self):
        """Leaves the broker."""
        self.consumer.close()
