"""The scores of an example's model by onnxruntime alone: one thread, 64 records at a time.

One thread, as the gateway's workers: with several, ONNX Runtime adds up an ensemble's trees in another order.
"""

import numpy as np
import onnxruntime

BATCH = 64


def features(data, spec):
    columns = []
    for field in spec["fields"]:
        if isinstance(field, str):
            columns.append(data[field].to_numpy(np.float64))
        else:
            columns += [(data[field["field"]] == word).to_numpy(np.float64) for word in field["vocabulary"]]
    return np.stack(columns, axis=1).astype(np.float32)


def score(data, policy, model_file):
    model = next(iter(policy["models"].values()))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model_file), options, providers=["CPUExecutionProvider"])
    feeds = {spec["name"]: features(data, spec) for spec in model["inputs"]}
    scored = {output["field"]: [] for output in model["outputs"]}
    for start in range(0, len(data), BATCH):
        part = {name: values[start:start + BATCH] for name, values in feeds.items()}
        for output in model["outputs"]:
            values = session.run([output["name"]], part)[0]
            scored[output["field"]].append(values.reshape(len(values), -1)[:, output.get("column", 0)])
    return {name: np.concatenate(values) for name, values in scored.items()}
