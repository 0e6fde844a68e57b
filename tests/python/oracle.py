"""What an example's gateway must have released, by pandas and onnxruntime alone.

usage: oracle.py EXAMPLE_DIR RELEASED_DIR REGION

Reads the declaration (policy.toml), the region's codes (regions.toml), the data and the model; computes
every cell; compares with the released JSON lines: the same cells, the same counts, numbers to 1e-9.
"""

import json
import math
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas

from scores import score

TOLERANCE = 1e-9


def seconds(duration):
    number, unit = int(duration[2:-1]), duration[-1]
    return number * {"S": 1, "M": 60, "H": 3600}[unit]


def key_of(values, key):
    words = key["domain"]
    return values.where(values.isin(words), "other").astype(str)


def metric(cell, spec, ranges):
    fn = spec["fn"]
    if fn == "count":
        return len(cell)
    values = cell[spec["field"]]
    if fn == "fraction":
        return float((values == spec["equals"]).mean())
    values = values.astype(np.float64)
    if fn == "histogram":
        edges = spec["edges"]
        return np.histogram(values.clip(edges[0], edges[-1]), edges)[0].tolist()
    values = values.clip(*ranges[spec["field"]])
    return {"sum": values.sum, "mean": values.mean, "variance": lambda: values.var(ddof=0)}[fn]()


def main():
    example, released, region = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    policy = tomllib.loads((example / "policies" / "policy.toml").read_text())
    regions = tomllib.loads((example / "../../policies/regions.toml").read_text())
    codes = set(regions["regions"][region]["codes"])
    (stream_name, stream), = policy["streams"].items()
    (evidence,), = stream["facts"].values()
    place_field = evidence["field"]
    (dataset_name, dataset), = policy["datasets"].items()
    data = pandas.read_csv(example / "data.csv.gz", dtype={place_field: str, stream["contributor"]: str}, keep_default_na=False)
    for name, values in score(data, policy, example / "model.onnx").items():
        data[name] = values
    place = data[place_field]
    data = data[place.isin(codes) | place.str[:2].isin(codes)]
    times = pandas.to_datetime(data[stream["event_time"]], utc=True)
    window = seconds(dataset["window"]["size"])
    micros = times.astype("datetime64[us, UTC]").astype("int64")
    data = data.assign(**{"(window)": micros // (window * 1_000_000) * window})
    keys = ["(window)"]
    for key in dataset["group_by"]:
        data["key " + key["field"]] = key_of(data[key["field"]], key)
        keys.append("key " + key["field"])
    ranges = {name: field["range"] for name, field in stream["fields"].items() if "range" in field}
    for output in next(iter(policy["models"].values()))["outputs"]:
        if "range" in output:
            ranges[output["field"]] = output["range"]
    expected, withheld = {}, 0
    for cell_key, cell in data.groupby(keys):
        if cell[stream["contributor"]].nunique() < dataset["min_contributors"]:
            withheld += 1
            continue
        expected[cell_key] = {spec["name"]: metric(cell, spec, ranges) for spec in dataset["metrics"]}
    found = {}
    for file in sorted((released / dataset_name).glob("*.jsonl")):
        for line in file.read_text().splitlines():
            line = json.loads(line)
            start = int(pandas.Timestamp(line["window_start"]).timestamp())
            cell_key = (start, *(line[key["field"]] for key in dataset["group_by"]))
            assert cell_key not in found, f"released twice: {cell_key}"
            found[cell_key] = line
    assert found.keys() == expected.keys(), (
        f"{len(found.keys() - expected.keys())} cells too many, {len(expected.keys() - found.keys())} missing"
    )
    for cell_key, metrics in expected.items():
        for name, value in metrics.items():
            got = found[cell_key][name]
            if isinstance(value, float):
                assert math.isclose(got, value, rel_tol=TOLERANCE, abs_tol=1e-9), (cell_key, name, got, value)
            else:
                assert got == value, (cell_key, name, got, value)
    assert len(expected) > 50, "the example's data show nothing"
    print(json.dumps({"cells": len(expected), "withheld": withheld, "records": len(data)}))


main()
