"""Reads releases from Kafka with confluent-kafka, and prints one JSON line per message.

usage: consume.py BROKERS TOPIC COUNT
"""

import json
import sys

from confluent_kafka import Consumer

brokers, topic, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
consumer = Consumer({"bootstrap.servers": brokers, "group.id": "test", "auto.offset.reset": "earliest"})
consumer.subscribe([topic])
found = 0
while found < count:
    message = consumer.poll(60)
    assert message is not None, f"{found} of {count} messages in a minute"
    assert not message.error(), message.error()
    found += 1
    headers = {key: value.decode() for key, value in message.headers()}
    cells = [json.loads(line) for line in message.value().splitlines()]
    print(json.dumps({"key": message.key().decode(), "headers": headers, "cells": cells}))
consumer.close()
