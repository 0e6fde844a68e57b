#!/usr/bin/env python3
"""Counts the instructions of the way of a batch, of 256 records and of 1, and compares them with benches/instructions.tsv.

It fails when there are 5 % more. If that is meant, run it with --write and say why in the commit. The model's own
instructions are left out: they depend on the processor.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXPECTED = ROOT / "benches" / "instructions.tsv"
RISE_MAX = 1.05
TIMES = 64 * 2


def binary():
    command = ["cargo", "build", "--release", "--bench", "instructions", "--message-format=json-render-diagnostics"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = (json.loads(line) for line in built.splitlines())
    found = [message["executable"] for message in messages if message.get("target", {}).get("name") == "instructions"]
    return found[-1]


def count(executable, records):
    """The instructions of one batch, without those of the model."""
    with tempfile.TemporaryDirectory() as directory:
        out = pathlib.Path(directory, "callgrind.out")
        options = ["--tool=callgrind", f"--callgrind-out-file={out}", "--collect-atstart=no", "--toggle-collect=*the_way_of_a_batch*"]
        run = subprocess.run(["valgrind", *options, executable, str(records)], cwd=ROOT, capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(f"valgrind failed:\n{run.stdout}{run.stderr}")
        return own(out.read_text()) / TIMES


def own(profile):
    """The sum of the costs of a profile's functions, each without those that it calls, by the format of Callgrind."""
    names, total, is_model, is_call = {}, 0, False, False
    for line in profile.splitlines():
        if line.startswith("ob="):
            number, name = re.fullmatch(r"ob=\((\d+)\)(?: (.*))?", line).groups()
            names.setdefault(number, name)
            is_model = "onnxruntime" in names[number]
        elif re.match(r"c?(ob|fi|fl|fn|fe)=", line):
            # Objects of called functions get their numbers here, too.
            called = re.fullmatch(r"cob=\((\d+)\)(?: (.*))?", line)
            if called:
                names.setdefault(*called.groups())
        elif line.startswith("calls="):
            is_call = True
        elif re.match(r"[-+*\d]", line):
            # What follows a call is the cost of what was called. Costs of zero are left out.
            _, *costs = line.split()
            if costs and not is_call and not is_model:
                total += int(costs[0])
            is_call = False
    return total


def main():
    executable = binary()
    found = {records: round(count(executable, records)) for records in (256, 1)}
    if sys.argv[1:] == ["--write"]:
        EXPECTED.write_text("".join(f"{records}\t{instructions}\n" for records, instructions in found.items()))
    expected = {int(records): int(instructions) for records, instructions in map(str.split, EXPECTED.read_text().splitlines())}
    failed = False
    for records, instructions in found.items():
        ratio = instructions / expected[records]
        print(f"a batch of {records}: {instructions} instructions, {ratio:.3f} times what {EXPECTED.relative_to(ROOT)} says")
        failed |= ratio > RISE_MAX
        if ratio < 2 - RISE_MAX:
            print("  fewer: run scripts/instructions.py --write, so that they stay as few")
    if failed:
        sys.exit("the way of a batch takes more instructions. If that is meant, run scripts/instructions.py --write, and say why in the commit")


if __name__ == "__main__":
    main()
