"""Single channels made by somebody else's generator, with somebody else's idea of anomalies: every detector of `smartgrid detect`.

    pip install --no-deps timeeval-gutentag neurokit2==0.1.2 gitpython gitdb smmap
    python benchmarks/single_channels.py [--seeds 11 12] [--drift] [--models default vote ...] [--out FILE.md]

GutenTAG (Wenig, Schmidl, Papenbrock 2022, "TimeEval: a benchmarking toolkit for time series anomaly detection algorithms",
PVLDB 15) draws sines, sawteeth, squares and random walks of 6,000 rows with two anomalies each, of nine kinds: amplitude, extremum,
frequency, mean, pattern, shift of a pattern, platform, trend, variance. The first 1,800 rows are learned from and hold none. With `--drift` every series wanders,
tilts and once changes its level for good, which is no anomaly. AUC-PR and VUS-PR (only where TSB-AD is installed) are means over
series; F1, false-alarm rate and event recall are those of the automatic threshold over all rows. `wide` is the AUC-PR where an anomaly counts
from 100 rows before to 100 rows after it, as incidents are labelled in NAB.

The default of single channels was decided on seeds 1 and 2, with and without drift.
"""

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from smartgrid_ai.anomaly.detect import KNOWN_MODELS, MODELS, detect

ROWS, LEARNED, AROUND = 6000, 1800, 100
BASES = {
    "sine": {"frequency": 4, "variance": 0.05},
    "cosine": {"frequency": 2, "amplitude": 1.5, "variance": 0.1},
    "random-walk": {"amplitude": 1.0, "variance": 0.02},
    "square": {"frequency": 2, "variance": 0.05},
    "sawtooth": {"frequency": 2, "variance": 0.05},
}
KINDS = {
    "amplitude": {"amplitude_factor": 1.6},
    "extremum": {"min": False, "local": False},
    "frequency": {"frequency_factor": 1.7},
    "mean": {"offset": 0.6},
    "pattern": {"sinusoid_k": 8.0},
    "pattern-shift": {"shift_by": 6, "transition_window": 8},
    "platform": {"value": 0.2},
    "trend": {"oscillation": {"kind": "polynomial", "polynomial": [0, 0.6]}},
    "variance": {"variance": 0.25},
}


def drawn(base: str, kind: str, seed: int) -> pd.DataFrame | None:
    "One series of the generator; None where it knows no such pair, or fails at it."
    from gutenTAG import GutenTAG

    rows = 1 if kind == "extremum" else int(np.random.default_rng(seed).integers(40, 160))
    about = {"length": rows, "channel": 0, "kinds": [{"kind": kind} | KINDS[kind]]}
    faults = [{"position": position} | about for position in ("middle", "end")]
    series = {"name": "one", "length": ROWS, "base-oscillations": [{"kind": base} | BASES[base]]}
    generator = GutenTAG(seed=seed)
    try:
        generator.load_config_dict({"timeseries": [series | {"anomalies": faults}]})
        made = generator.generate(return_timeseries=True)[0].timeseries.reset_index(drop=True)
    except ValueError:
        return None
    label = made["is_anomaly"].to_numpy().astype(bool)
    if label[:LEARNED].any() or not label.any():
        return None
    value = made.drop(columns="is_anomaly").iloc[:, 0]
    return pd.DataFrame(
        {
            "value": value,
            "label": label,
            "split": np.where(np.arange(ROWS) < LEARNED, "train", "test"),
        }
    )


def drifting(value: np.ndarray, seed: int) -> np.ndarray:
    "The series with a tilt, a wandering level and one lasting change, in deviations of its training part."
    random, share = np.random.default_rng(seed), np.arange(ROWS) / ROWS
    tilt = random.normal() * np.clip(share - LEARNED / ROWS, 0, 1)
    change = random.normal() * (share > random.uniform(0.35, 0.9))
    wander = 0.3 * np.cumsum(random.normal(size=ROWS)) / np.sqrt(ROWS)
    return value + value[:LEARNED].std() * (tilt + change + wander)


def table_of(seeds: list[int], drift: bool) -> pd.DataFrame:
    "All series, one under the other."
    parts, clock = [], pd.date_range("2024-01-01", periods=ROWS, freq="5min")
    for seed in seeds:
        for number, (base, kind) in enumerate((b, k) for b in BASES for k in KINDS):
            one = drawn(base, kind, 1000 * seed + number)
            if one is not None:
                if drift:
                    one["value"] = drifting(one["value"].to_numpy(), 1000 * seed + number)
                parts.append(one.assign(series=f"{base} {kind} {seed}", timestamp=clock))
    return pd.concat(parts, ignore_index=True)


def widened(label: np.ndarray) -> np.ndarray:
    "True up to `AROUND` rows before and after."
    return np.convolve(label, np.ones(2 * AROUND + 1), "same") > 0.5


def area(label: np.ndarray, score: np.ndarray) -> float:
    "VUS-PR of one series, NaN without TSB-AD."
    try:
        from TSB_AD.evaluation.basic_metrics import generate_curve
    except ImportError:
        return float("nan")
    return generate_curve(label.astype(int), score, AROUND, "opt", 100)[-1]


def judged(truth: pd.DataFrame, scores: pd.DataFrame) -> dict[str, float]:
    "What one detector is worth."
    from sklearn.metrics import average_precision_score

    areas, hits, count, true, false, missed = [], 0, 0, 0, 0, 0
    for name, own in scores.groupby("series"):
        every = truth[truth["series"] == name]
        label, wide = (
            v[LEARNED:] for v in (every["label"].to_numpy(), widened(every["label"].to_numpy()))
        )
        score, alarm = own["score"].to_numpy(), own["alarm"].to_numpy()
        areas.append(
            (
                average_precision_score(label, score),
                area(label, score),
                average_precision_score(wide, score),
            )
        )
        starts = np.flatnonzero(np.diff(np.r_[0, label.astype(int), 0])).reshape(-1, 2)
        hits, count = hits + sum(alarm[a:b].any() for a, b in starts), count + len(starts)
        true, false, missed = (
            true + (label & alarm).sum(),
            false + (~label & alarm).sum(),
            missed + (label & ~alarm).sum(),
        )
    usual = len(scores) - true - missed
    names = ("AUC-PR", "VUS-PR", "wide"), np.mean(areas, axis=0)
    return dict(zip(*names)) | {
        "F1": 2 * true / max(2 * true + false + missed, 1), "FAR %": 100 * false / usual, "event recall": hits / count,
    }  # fmt: skip


def main() -> int:
    "One table."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12])
    parser.add_argument("--drift", action="store_true")
    models = [name for name in MODELS if name != "residual"]
    parser.add_argument("--models", nargs="+", default=models, choices=KNOWN_MODELS)
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    options = parser.parse_args()
    try:
        import gutenTAG  # noqa: F401
    except ImportError:
        print(
            "left out: GutenTAG is not installed; the first lines of this file say how",
            file=sys.stderr,
        )
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth = table_of(options.seeds, options.drift)
    scores = detect(truth.drop(columns="label"), tuple(options.models), progress=True)
    rows = {name: judged(truth, own) for name, own in scores.groupby("model")}
    found = pd.DataFrame(rows).T.sort_values("AUC-PR", ascending=False).round(3)
    text = f"{truth['series'].nunique()} series, base rate {truth['label'][truth['split'] == 'test'].mean():.3f}\n{found.to_string()}\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
