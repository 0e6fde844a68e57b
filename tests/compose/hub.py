"""What the hub's Kafka holds, held against an oracle: pandas and onnxruntime alone (tests/python/oracle.py)."""

import contextlib
import json
import math
import sys
from dataclasses import dataclass

from engine import Failed, tail, until
from images import REPOSITORY
from loads import STREAMS

sys.path.insert(0, str(REPOSITORY / "tests" / "python"))
from oracle import TOLERANCE, Example  # noqa: E402
import pandas  # noqa: E402

TOPICS = {"payments": "fraud-desk", "readings": "fleet-desk", "deliveries": "dispatch-desk"}
# The region of the laws that each region's gateways serve.
LAWS = {"eu": "eea", "us": "us", "in": "india"}
RELEASED_WITHIN_SECONDS = 600.0


@dataclass
class Expected:
    """What one gateway must have released of a stream."""

    gateway: str
    example: Example
    cells: dict
    records: int


def expect(example, gateway, share=1.0):
    """What a gateway that got all of an example's records must have accepted and released."""
    cells, _, records = example.expected(LAWS[gateway.partition("-")[0]], round(len(example.data) * share))
    return Expected(gateway, example, cells, records)


def examples():
    """The examples, scored once, by stream."""
    return {stream: Example(REPOSITORY / "examples" / folder) for stream, folder in STREAMS.items()}


def cells(stack, topic):
    """Every cell in a topic, as a consumer with `read_committed` gets it."""
    said = stack.once(
        "hub-topics", "/opt/kafka/bin/kafka-console-consumer.sh", "--bootstrap-server", "hub-kafka:9092", "--topic", topic,
        "--from-beginning", "--isolation-level", "read_committed", "--timeout-ms", "3000", environment={"KAFKA_HEAP_OPTS": "-Xmx96m"})
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def holds(stack, stream, expected):
    """Waits until the hub has as many cells of each gateway as it must, and compares every one of them."""
    wanted = sum(len(one.cells) for one in expected)
    found = []

    def are_there():
        # On a busy machine a consumer may give up before it has read all, or anything.
        with contextlib.suppress(Failed):
            found[:] = max(found, cells(stack, TOPICS[stream]), key=len)
        return len(found) >= wanted

    # What is missing after that is named below.
    with contextlib.suppress(Failed):
        until(are_there, f"{wanted} cells of {stream}", RELEASED_WITHIN_SECONDS)
    by_gateway = {one.gateway: [] for one in expected}
    for cell in found:
        if cell["gateway"] not in by_gateway:
            raise Failed(f"{stream}: a cell of {cell['gateway']}, which was sent nothing")
        by_gateway[cell["gateway"]].append(cell)
    for one in expected:
        try:
            compare(one, by_gateway[one.gateway])
        except Failed as error:
            raise Failed(f"{error}\n{tail(stack.log(one.gateway))}") from error
    return wanted


def compare(expected, found):
    """The same cells, each once, with the same numbers."""
    seen = {}
    keys = [key["field"] for key in expected.example.dataset["group_by"]]
    for cell in found:
        key = (int(pandas.Timestamp(cell["window_start"]).timestamp()), *(cell[name] for name in keys))
        if key in seen:
            raise Failed(f"{expected.gateway}: counted twice: {key}")
        seen[key] = cell
    if seen.keys() != expected.cells.keys():
        missing, beyond = expected.cells.keys() - seen.keys(), seen.keys() - expected.cells.keys()
        raise Failed(f"{expected.gateway}: {len(missing)} cells are missing, as {sorted(missing)[:2]}; {len(beyond)} too many, "
                     f"as {sorted(beyond)[:2]}")
    for key, metrics in expected.cells.items():
        for name, value in metrics.items():
            got = seen[key][name]
            same = math.isclose(got, value, rel_tol=TOLERANCE, abs_tol=1e-9) if isinstance(value, float) else got == value
            if not same:
                raise Failed(f"{expected.gateway}: {key}: {name} is {got}, not {value}")
