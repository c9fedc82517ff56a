"""Labelled anomalies: this package's detectors beside PyOD's, how well they rank and how fast they are.

    python benchmarks/anomaly.py [quality] [speed] [--sets lead skab nab] [--data FOLDER] [--rows 409000] [--window 100]
                                 [--peers KNN COPOD …] [--out FILE.md]

QUALITY. `smartgrid detect` runs as a person would run it, with all its models and default settings; the textbook ensemble
`vote` (isolation forest, one-class SVM, autoencoder, majority of three) is one of them. PyOD's detectors with their default
settings and a contamination of 1 %, which sets their threshold, learn from the same training part and judge the same rows;
no label is read. Rows are what a PyOD user would give: on lead the 31 features as ratios to their own week, scaled, of all
buildings together; on skab the channels, scaled, file by file; on nab sliding windows of the value, scaled, series by
series. The default width of 100 rows was the best for PyOD of 1, 10, 32 and 100. At most 5,000 training rows are given to
PyOD's detectors that slow down with the number of rows (KNN, LOF, OCSVM, MCD; a random sample, seed 0). MCD on windows of
100 rows takes longer than all others together: `--peers` names those to run. One parquet with all scores goes to the
scorer that lies beside the data (`../score/score_anomaly.py`), which prints the table: AUC-PR, VUS-PR (only where TSB-AD
is installed: pip install --no-deps TSB-AD), F1, false-alarm and missed-alarm rate at the automatic threshold, event recall,
false events per series-month. Its last column, the best F1, uses the labels and is an upper bound, no result. Then the default
is compared with the best single detector, ours or PyOD's, by a paired bootstrap over series.

SPEED. Rows per second, to fit and to score, on 409,000 rows of 31 features of simulated meters (preset seed_2011_2015, ten
meters, five years), one thread, one round: compare ratios. The exact one-class SVM is never run on so many: its time grows
quadratically. Ours is then Nyström and stochastic gradient descent, a different detector. Where a detector keeps the rows it
learned (PyOD's KNN, LOF and OCSVM), 5,000 rows are learned and 20,000 scored; MCD and PyOD's autoencoder learn 5,000, too.
The table says so.

PyOD is no dependency of this package (pip install pyod); without it only ours is shown. A set that is not there is named and
left out.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from smartgrid_ai.anomaly.autoencoder import AutoencoderDetector
from smartgrid_ai.anomaly.detect import detect
from smartgrid_ai.anomaly.detectors import (
    IsolationForestDetector,
    OneClassSVMDetector,
    RowScaler,
)
from smartgrid_ai.anomaly.neighbours import LocalOutlierFactorDetector, NearestNeighbourDetector
from smartgrid_ai.anomaly.series import Signal, read_series, signals
from smartgrid_ai.data.simulate import SIMULATED_PLACE, simulate
from smartgrid_ai.evaluate.paired import paired_bootstrap
from smartgrid_ai.features import FEATURE_NAMES, make_features
from smartgrid_ai.readings import Place

ROOT = Path(__file__).resolve().parents[1]
SETS = ("lead", "skab", "nab")
PEERS = {
    "IForest": "iforest", "KNN": "knn", "COPOD": "copod", "ECOD": "ecod", "LOF": "lof", "HBOS": "hbos",
    "PCA": "pca", "MCD": "mcd", "OCSVM": "ocsvm", "CBLOF": "cblof",
}  # fmt: skip
TIMED = PEERS | {"AutoEncoder": "auto_encoder"}  # too slow to learn every series of nab
SLOW = ("KNN", "LOF", "OCSVM", "MCD", "AutoEncoder")  # learn from a sample
KEEPS_ROWS = ("KNN", "LOF", "OCSVM")  # and take long to score, too
SEEDED = ("IForest", "MCD", "CBLOF", "AutoEncoder")
MOST_LEARNED, MOST_SCORED = 5000, 20_000  # rows
COMPOSED = ("default", "vote", "mean", "ensemble")  # no single detectors


# PyOD


def has(module: str) -> bool:
    "Whether a module can be imported."
    return importlib.util.find_spec(module) is not None


def peer(name: str):
    "A fresh PyOD detector with its defaults and 1 % contamination."
    module = importlib.import_module(f"pyod.models.{TIMED[name]}")
    more = {"random_state": 0} if name in SEEDED else {}
    more |= {"verbose": 0} if name == "AutoEncoder" else {}
    return getattr(module, name)(contamination=0.01, **more)


def sample(rows: np.ndarray, name: str) -> np.ndarray:
    "What a peer learns from."
    if name not in SLOW or len(rows) <= MOST_LEARNED:
        return rows
    chosen = np.random.default_rng(0).choice(len(rows), MOST_LEARNED, replace=False)
    return rows[np.sort(chosen)]


def peer_scores(name: str, known: np.ndarray, later: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "Scores and alarms of one PyOD detector; one that cannot be fitted calls every row equally usual."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = peer(name)
            fitted.fit(sample(known, name))
            score = np.nan_to_num(fitted.decision_function(later), posinf=1e30)
    except ValueError as error:
        print(f"PyOD's {name} could not be fitted: {error}", file=sys.stderr)
        return np.zeros(len(later)), np.zeros(len(later), bool)
    return score, score > fitted.threshold_


# Rows as a PyOD user would give them


def scaled(rows: np.ndarray, train: np.ndarray) -> np.ndarray:
    "Mean 0, deviation 1 on the training part, no constant columns; gaps filled with the value before."
    filled = pd.DataFrame(rows).ffill().bfill().fillna(0.0).to_numpy()
    mean, deviation = filled[train].mean(axis=0), filled[train].std(axis=0)
    varies = deviation > 1e-9 * np.maximum(np.abs(mean), 1e-300)
    varies = varies if varies.any() else ~varies
    return ((filled - mean) / np.where(deviation > 0, deviation, 1.0))[:, varies]


def windows(signal: Signal, width: int) -> np.ndarray:  # (n, width)
    "Each value of a single channel with those before it."
    value = pd.Series(signal.values[:, 0]).ffill().bfill().to_numpy()
    padded = np.r_[np.full(width - 1, value[0]), value]
    return np.lib.stride_tricks.sliding_window_view(padded, width)


def load_features(signal: Signal) -> np.ndarray:  # (n, 31), W where the feature is a power
    "Row t: the 31 features that end with hour t."
    clock = pd.DatetimeIndex(signal.timestamp).floor("h").tz_localize("UTC")
    mean = pd.Series(signal.values[:, 0]).groupby(clock).mean()
    readings = {"meter_id": signal.name, "timestamp": mean.index, "consumption": mean.to_numpy()}
    readings = pd.DataFrame(readings).astype({"timestamp": "datetime64[us, UTC]"})
    rows = make_features(readings, Place(), weather="none", ahead=1).set_index("timestamp")
    return rows.loc[clock + pd.Timedelta(hours=1), list(FEATURE_NAMES)].to_numpy()


def tables(
    series: list[Signal], width: int
) -> Iterator[tuple[list[Signal], np.ndarray, np.ndarray]]:
    "Series that are learned together, their rows, and which may be learned from."
    loads = [signal for signal in series if signal.is_load]
    if loads:
        train = np.concatenate([signal.train for signal in loads])
        rows = np.concatenate([load_features(signal) for signal in loads])
        rows = RowScaler(FEATURE_NAMES).fit(rows[train]).transform(rows)
        yield loads, scaled(rows, train), train
    for signal in series:
        if not signal.is_load:
            single = len(signal.channels) == 1
            rows = windows(signal, width) if single else signal.values
            yield [signal], scaled(rows, signal.train), signal.train


def peers_on(frame: pd.DataFrame, width: int, names: list[str]) -> pd.DataFrame:
    "PyOD's scores in the form of `smartgrid detect`."
    parts = []
    for owners, rows, train in tables(signals(frame), width):
        position = np.concatenate([signal.position for signal in owners])[~train]
        owner = np.concatenate([[signal.name] * len(signal.train) for signal in owners])[~train]
        for name in names:
            score, alarm = peer_scores(name, rows[train], rows[~train])
            part = {"model": f"PyOD {name}", "series": owner, "score": score, "alarm": alarm}
            parts.append(pd.DataFrame(part, index=position))
    table = pd.concat(parts).sort_index(kind="stable")
    table.insert(2, "timestamp", pd.to_datetime(frame["timestamp"]).array[table.index])
    return table.reset_index(drop=True)


# Quality


def scorer_of(data: Path) -> Path:
    "Where the scorer of a folder `shared/data/anomaly` lies."
    return data.resolve().parents[1] / "score" / "score_anomaly.py"


def our_scores(path: Path, folder: Path) -> pd.DataFrame:
    "What `smartgrid detect` writes."
    result = folder / "ours.parquet"
    start = "import sys; from smartgrid_ai.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "detect", str(path), "--out", str(result)]
    print(f"$ smartgrid detect {path}", file=sys.stderr, flush=True)
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        sys.exit("smartgrid detect did not end well: see above")
    return pd.read_parquet(result)


def per_series(scores: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    "AUC-PR of each model on each series that has both classes: model, series, value."
    from sklearn.metrics import average_precision_score

    truth = frame[["series", "timestamp", "label"]]
    truth = truth.assign(order=truth.groupby(["series", "timestamp"]).cumcount())
    order = scores.groupby(["model", "series", "timestamp"]).cumcount()
    joined = scores.assign(order=order).merge(truth, on=["series", "timestamp", "order"])
    found = [
        {"model": model, "series": series, "value": average_precision_score(own.label, own.score)}
        for (model, series), own in joined.groupby(["model", "series"])
        if own["label"].nunique() == 2
    ]
    return pd.DataFrame(found)


def contest(values: pd.DataFrame) -> str:
    "The default against the best single detector, in one sentence."
    mean = values.groupby("model")["value"].mean()
    rival = mean.drop([name for name in COMPOSED if name in mean]).idxmax()
    sentence = f"default / {rival}, the best single detector by AUC-PR: {mean['default'] / mean[rival]:.2f}"
    outcome = paired_bootstrap(values, "default", rival, 0)
    return (
        f"{sentence}; paired bootstrap over {outcome['series']} series: difference {outcome['difference']:+.3f}, "
        f"95 % of draws {outcome['low']:+.3f} to {outcome['high']:+.3f}, ahead in {outcome['wins']:.0%} of draws"
    )


def quality(name: str, data: Path, width: int, peers: list[str]) -> str:
    "Table and contest of one set."
    path = data / f"{name}.parquet"
    frame = read_series(path)
    with TemporaryDirectory() as folder:
        scores = our_scores(path, Path(folder))
        if has("pyod"):
            scores = pd.concat([scores, peers_on(frame, width, peers)], ignore_index=True)
        together = Path(folder) / "scores.parquet"
        scores.to_parquet(together)
        judge = [sys.executable, str(scorer_of(data)), name, str(together), "--data", str(data)]
        table = subprocess.run(judge, check=True, capture_output=True, text=True).stdout
    notes = [contest(per_series(scores, frame))]
    if not has("TSB_AD"):
        notes.append("VUS-PR not computed: pip install --no-deps TSB-AD")
    return f"{name}\n{table}" + "\n".join(notes)


# Speed


def simulated_rows(count: int) -> tuple[np.ndarray, str]:  # (count, 31), scaled
    "Rows of simulated meters, repeated where more are wanted than there are."
    features = make_features(simulate("seed_2011_2015", 0), SIMULATED_PLACE, weather="none")
    rows = features.loc[~features["warm_up"], list(FEATURE_NAMES)].to_numpy()
    note = f"of {len(rows):,} rows of the preset seed_2011_2015"
    rows = np.resize(rows, (count, rows.shape[1])) if count > len(rows) else rows[:count]
    return RowScaler(FEATURE_NAMES).fit(rows).transform(rows), note


def our_detectors() -> dict[str, Callable]:
    "Fresh detectors of this package by name."
    found = (
        IsolationForestDetector, OneClassSVMDetector, AutoencoderDetector, LocalOutlierFactorDetector, NearestNeighbourDetector,
    )  # fmt: skip
    return {kind.name: kind for kind in found}


def speed_row(name: str, fit: Callable, score: Callable, learned: int, scored: int) -> dict:
    "Rows per second of one detector."
    start = time.perf_counter()
    fit()
    middle = time.perf_counter()
    score()
    end = time.perf_counter()
    return {
        "detector": name, "fit, rows/s": learned / (middle - start), "score, rows/s": scored / (end - middle),
        "rows learned": learned, "rows scored": scored,
    }  # fmt: skip


def peer_speed(name: str, rows: np.ndarray) -> dict:
    "PyOD's figures for one detector."
    known = sample(rows, name)
    later = rows[:MOST_SCORED] if name in KEEPS_ROWS else rows
    fitted = peer(name)
    return speed_row(
        f"PyOD {name}", lambda: fitted.fit(known), lambda: fitted.decision_function(later), len(known), len(later)
    )  # fmt: skip


COUNTERPART = {
    "isolation_forest": "PyOD IForest", "one_class_svm": "PyOD OCSVM", "lof": "PyOD LOF",
    "nearest_neighbour": "PyOD KNN", "autoencoder": "PyOD AutoEncoder",
}  # fmt: skip


def default_speeds() -> list[dict]:
    "The defaults of loads and of single channels, fit and score in one."
    hours = simulate("small", 0).drop(columns=["fault", "expected"], errors="ignore")
    random = np.random.default_rng(0)
    clock = pd.date_range("2024-01-01", periods=16_000, freq="5min")
    rhythm = np.sin(np.arange(16_000) * 2 * np.pi / 288)
    value = pd.DataFrame({"timestamp": clock, "value": rhythm + random.normal(0, 0.2, 16_000)})
    found = []
    for name, frame in (("default, hourly loads", hours), ("default, one channel", value)):
        detect(frame.head(2000), ("default",))  # compiled kernels and imports are not timed
        start = time.perf_counter()
        detect(frame, ("default",))
        rate = len(frame) / (time.perf_counter() - start)
        found.append({"detector": name, "score, rows/s": rate, "rows scored": len(frame)})
    return found


def speed(count: int) -> str:
    "Rows per second of all, and the ratios of what is comparable."
    rows, note = simulated_rows(count)
    table = []
    for name, kind in our_detectors().items():
        detector = kind()
        table.append(
            speed_row(name, lambda d=detector: d.fit(rows), lambda d=detector: d.score(rows), len(rows), len(rows))
        )  # fmt: skip
        print(f"{name}: timed", file=sys.stderr, flush=True)
    for name in TIMED if has("pyod") else ():
        table.append(peer_speed(name, rows))
        print(f"PyOD {name}: timed", file=sys.stderr, flush=True)
    table = pd.DataFrame(table + default_speeds()).set_index("detector")
    lines = [f"speed, {len(rows):,} x {rows.shape[1]} {note}", table.round(0).to_string(na_rep="")]
    for ours, theirs in COUNTERPART.items():
        if ours in table.index and theirs in table.index:
            ratio = table.loc[ours] / table.loc[theirs]
            lines.append(
                f"{ours} / {theirs}: fit {ratio['fit, rows/s']:.1f} x, score {ratio['score, rows/s']:.1f} x"
            )
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    "Options."
    shared = Path(os.environ.get("SMARTGRID_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help="quality, speed; default: both")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--data", type=Path, default=shared / "data" / "anomaly", metavar="FOLDER")
    parser.add_argument("--rows", type=int, default=409_000, help="of the speed test")
    parser.add_argument("--window", type=int, default=100, help="rows that PyOD sees of a channel")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="NAME")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write what is printed there")
    options = parser.parse_args()
    unknown = [part for part in options.parts if part not in ("quality", "speed")]
    if unknown:
        parser.error(f"no part {unknown[0]!r}: use quality, speed, or both")
    return options


def main() -> int:
    "Quality of each set, then speed."
    options, shown = parse(), []
    if not has("pyod"):
        print("PyOD is not installed and left out: pip install pyod", file=sys.stderr)
    parts = options.parts or ["quality", "speed"]
    for name in options.sets if "quality" in parts else ():
        if not (options.data / f"{name}.parquet").is_file():
            print(f"{name}: left out, {options.data / name}.parquet is not there", file=sys.stderr)
        elif not scorer_of(options.data).is_file():
            print(f"{name}: left out, no scorer {scorer_of(options.data)}", file=sys.stderr)
        else:
            shown.append(quality(name, options.data, options.window, options.peers))
            print(shown[-1] + "\n", flush=True)
    if "speed" in parts:
        shown.append(speed(options.rows))
        print(shown[-1], flush=True)
    if options.out:
        options.out.write_text("```\n" + "\n\n".join(shown) + "\n```\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
