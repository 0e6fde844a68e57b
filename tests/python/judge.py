"""The outside producer and the outside oracle of one example, for many gateways: what to expect is worked out once.

usage: judge.py EXAMPLE_DIR PROTO_DIR ROWS_PROTO REGION

Answers each line of its input, a JSON object, with one line:
{"prepare": KIND, "batch": SIZE, "shuffle": SECONDS, "records": COUNT}   {}
{"send": HOST:PORT}                                                      what was sent, accepted, refused
{"compare": RELEASED_DIR, "records": COUNT}                              how many cells agree, and are withheld
"""

import json
import sys

from client import Client
from oracle import Example


def main():
    directory, proto_dir, rows_proto, region = sys.argv[1:]
    example = Example(directory)
    client = Client(example, proto_dir, rows_proto)
    known = {}
    for line in sys.stdin:
        asked, answer = json.loads(line), {}
        count = asked.get("records")
        if "prepare" in asked:
            client.prepare(asked["prepare"], asked["batch"], asked["shuffle"], count)
        elif "send" in asked:
            answer = client.send(asked["send"])
        else:
            if count not in known:
                known[count] = example.expected(region, count)
            expected, withheld, records = known[count]
            example.compare(asked["compare"], expected)
            answer = {"cells": len(expected), "withheld": withheld, "records": records}
        print(json.dumps(answer), flush=True)


main()
