"""Reads releases from Kafka with confluent-kafka, and prints one JSON line per message.

usage: consume.py BROKERS TOPIC COUNT    waits for so many messages; `all`: reads to the end
Aborted messages are not read: `read_committed`.
"""

import json
import sys

from confluent_kafka import Consumer, KafkaError, TopicPartition

brokers, topic, count = sys.argv[1], sys.argv[2], sys.argv[3]
consumer = Consumer({"bootstrap.servers": brokers, "group.id": "test", "auto.offset.reset": "earliest", "enable.auto.commit": False,
                     "isolation.level": "read_committed", "enable.partition.eof": True})
partitions = consumer.list_topics(topic, timeout=120).topics[topic].partitions
consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
found, ends = 0, set()
while len(ends) < len(partitions) if count == "all" else found < int(count):
    message = consumer.poll(120)
    assert message is not None, f"{found} of {count} messages, and none in two minutes"
    if message.error() and message.error().code() == KafkaError._PARTITION_EOF:
        ends.add(message.partition())
        continue
    assert not message.error(), message.error()
    found += 1
    headers = {key: value.decode() for key, value in message.headers()}
    cells = [json.loads(line) for line in message.value().splitlines()]
    print(json.dumps({"key": message.key().decode(), "headers": headers, "cells": cells, "value": message.value().hex()}))
consumer.close()
