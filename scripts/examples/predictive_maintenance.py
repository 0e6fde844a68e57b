"""Predictive maintenance: a random forest on the sensor readings of the Statlog Shuttle set."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from onnx import ModelProto, helper, numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

import common

SOURCE = common.Package(
    name="river",
    version="0.26.1",
    file="river-0.26.1-cp311-cp311-manylinux_2_28_x86_64.whl",
    sha256="6a11e1a9749beec3ea138efeb0205b2c5cea8d424e9deee306c8980faec01bef",
)
MEMBER = "river/datasets/shuttle.csv.gz"
TRAINED_SHARE = 0.4
START = np.datetime64("2026-03-02T00:00:00", "us")
SITES = {"DE": 75, "FR": 45, "PL": 45, "US-TX": 54, "US-OH": 36, "IN": 42, "MX": 3}  # machines: 300
LINES = ("a", "b", "c")
READINGS = 84  # of each machine
PERIOD = 85.0  # seconds between two readings of a machine
JITTER = 2.0  # seconds
SENSORS = [f"s{index}" for index in range(1, 10)]


def make(name: str, directory: Path) -> None:
    source = read()
    order = np.random.default_rng([common.SEED, 2]).permutation(len(source))
    cut = int(len(source) * TRAINED_SHARE)
    trained, held_out = source.iloc[order[:cut]], source.iloc[order[cut:]]
    forest = RandomForestClassifier(n_estimators=40, max_depth=7, min_samples_leaf=3, random_state=common.SEED, n_jobs=1)
    forest.fit(trained[SENSORS].to_numpy(np.float32), trained["anomaly"].to_numpy(np.int64))
    exported = convert_sklearn(
        forest,
        name="predictive_maintenance",
        initial_types=[("features", FloatTensorType([None, len(SENSORS)]))],
        target_opset={"": 17, "ai.onnx.ml": 3},
        options={"zipmap": False},
    )
    model = directory / "model.onnx"
    common.write_model(model, clip(exported, "probabilities"))

    features = held_out[SENSORS].to_numpy(np.float32)
    anomaly = held_out["anomaly"].to_numpy()
    labels, probabilities = forest.predict(features), forest.predict_proba(features)
    outputs = {"label": ("int64", [None]), "probabilities": ("float32", [None, 2])}
    differences = common.check_model(model, len(SENSORS), outputs, features, {"label": labels, "probabilities": probabilities})

    common.write_data(directory / "data.csv.gz", events(held_out[: READINGS * sum(SITES.values())]))
    card = {
        "model": name,
        "kind": f"random forest, {forest.n_estimators} trees of depth {forest.max_depth} at most",
        "input": {"name": "features", "dtype": "float32", "shape": ["rows", len(SENSORS)], "columns": SENSORS},
        "outputs": [
            {"name": "label", "dtype": "int64", "shape": ["rows"], "meaning": "1 if an anomaly is the more probable"},
            {"name": "probabilities", "dtype": "float32", "shape": ["rows", 2], "meaning": "of normal (column 0) and of an anomaly (column 1)"},
        ],
        "split": "at random: 40 % of the rows are trained on, 60 % are held out",
        "rows_trained_on": len(trained),
        "rows_held_out": len(held_out),
        "quality": {
            "anomalies_trained_on": int(trained["anomaly"].sum()),
            "anomalies_held_out": int(anomaly.sum()),
            "average_precision": round(average_precision_score(anomaly, probabilities[:, 1]), 6),
            "roc_auc": round(roc_auc_score(anomaly, probabilities[:, 1]), 6),
            "f1": round(f1_score(anomaly, labels), 4),
            "anomalies_missed": int(((anomaly == 1) & (labels == 0)).sum()),
            "false_alarms": int(((anomaly == 0) & (labels == 1)).sum()),
        },
        "largest_difference_onnx_sklearn": {key: float(f"{value:.1e}") for key, value in differences.items()},
    }
    common.write_card(directory / "model.json", model, card)


def read() -> pd.DataFrame:
    with zipfile.ZipFile(common.fetch(SOURCE)) as archive, archive.open(MEMBER) as file:
        source = pd.read_csv(file, compression="gzip")
    source.columns = [*SENSORS, "anomaly"]
    if len(source) != 49_097:
        raise SystemExit(f"{MEMBER} is not as expected")
    return source


def events(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows as the gateway gets them, dealt out to generated machines, and no label."""
    random = np.random.default_rng([common.SEED, 3])
    number = sum(SITES.values())
    site = random.permutation(np.repeat(list(SITES), list(SITES.values())))
    line = np.empty(number, dtype=object)
    for code in SITES:  # the lines of a site have equally many machines, or nearly
        own = np.flatnonzero(site == code)
        line[own] = [LINES[index % len(LINES)] for index in range(len(own))]
    phase = random.uniform(JITTER, PERIOD, number)
    seconds = phase[:, None] + PERIOD * np.arange(READINGS) + random.uniform(-JITTER, JITTER, (number, READINGS))
    milliseconds = np.rint(seconds * 1000).astype(np.int64).ravel()
    machine = np.repeat(np.arange(number), READINGS)
    order = np.lexsort([machine, milliseconds])
    machine = machine[order]
    data = {
        "event_time": common.rfc3339(START + milliseconds[order].astype("timedelta64[ms]")),
        "machine": [f"m-{1 + index:04d}" for index in machine],
        "site": site[machine],
        "line": line[machine],
    }
    data |= {column: rows[column].to_numpy() for column in SENSORS}
    return pd.DataFrame(data)


def clip(model: ModelProto, output: str) -> ModelProto:
    """The model with an output kept within 0 and 1: sums of float32 shares can end up 1e-7 outside."""
    unclipped = f"{output}_unclipped"
    for node in model.graph.node:
        node.output[:] = [unclipped if name == output else name for name in node.output]
    for name, value in (("lowest", 0.0), ("highest", 1.0)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=np.float32), name))
    model.graph.node.append(helper.make_node("Clip", [unclipped, "lowest", "highest"], [output], name="clip"))
    return model
