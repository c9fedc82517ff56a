"""What does an explanation cost, a row at a time and in bulk, and do its parts add up to the score?

    python benchmarks/explanations.py [--rows 20000] [--calls 300] [--shap-rows 100]

An ensemble is fitted on rows of 31 features of a simulated year. Timed are the parts of each detector's score, the parts of
the ensemble's score (`attribute`), and the finished lists with names, values and shares (`explain`, the five
largest of each row), for all rows in one call and for one row per call; scoring the same rows is printed beside it. The
one-class machine is timed twice, exact and as Nyström, because the ensemble takes one or the other by the number of rows.
Where `shap` is installed (`pip install shap`; it is no dependency of this project), its TreeExplainer explains the same
forest. CPU time is measured, so that other work on the machine hardly counts. Rounds are repeated and the fastest counts;
compiling and fitting are not timed.
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from smartgrid_ai.anomaly.attribution import ForestPaths, copy_attribution, machine_attribution
from smartgrid_ai.anomaly.detectors import OneClassSVMDetector
from smartgrid_ai.anomaly.ensemble import AnomalyEnsemble
from smartgrid_ai.data.simulate import SIMULATED_PLACE, simulate
from smartgrid_ai.workflow import judged_rows

TOP = 5  # contributions listed per row
GOAL = 100.0  # microseconds a row


def fastest(call: Callable[[], object], rounds: int = 3) -> float:
    "Seconds of the quickest of several calls, after one that is not counted."
    call()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return min(seconds)


def one_by_one(call: Callable[[np.ndarray], object], rows: np.ndarray) -> float:
    "Seconds of a call with a single row, the median over `rows`."
    call(rows[:1])
    seconds = []
    for number in range(len(rows)):
        start = time.process_time()
        call(rows[number : number + 1])
        seconds.append(time.process_time() - start)
    return float(np.median(seconds))


def parts_of_detectors(ensemble: AnomalyEnsemble, rows: np.ndarray) -> dict[str, Callable]:
    "One call per detector that takes the scores of all rows apart."
    scaled = ensemble.scaler.transform(rows)
    paths = ForestPaths(ensemble.detectors["isolation_forest"].model)
    machines = {
        "one-class SVM, exact": OneClassSVMDetector(exact_up_to=len(scaled)),
        "one-class SVM, Nyström": OneClassSVMDetector(exact_up_to=0),
    }
    calls = {"isolation forest, paths": lambda: paths.attribute(scaled)}
    for name, machine in machines.items():
        model = machine.fit(scaled).model
        calls[name] = lambda model=model: machine_attribution(model, scaled)
    autoencoder = ensemble.detectors["autoencoder"]
    calls["autoencoder, errors"] = lambda: copy_attribution(scaled, autoencoder.copies(scaled))
    return calls


def shap_seconds(ensemble: AnomalyEnsemble, rows: np.ndarray) -> float | None:
    "Seconds of SHAP's TreeExplainer for the forest alone; None where it is not installed."
    try:
        import shap
    except ImportError:
        return None
    explainer = shap.TreeExplainer(ensemble.detectors["isolation_forest"].model)
    scaled = ensemble.scaler.transform(rows)
    return fastest(lambda: explainer.shap_values(scaled), rounds=1)


def report(name: str, seconds: float, count: int) -> None:
    "One line of the table."
    print(f"{name:<44}{1e6 * seconds / count:10.1f} µs a row")


def main() -> None:
    "Fit, check that the parts add up, print the times."
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=int, default=20_000, help="rows that are explained")
    arguments.add_argument("--calls", type=int, default=300, help="calls with a single row")
    arguments.add_argument("--shap-rows", type=int, default=100, help="rows that SHAP explains")
    options = arguments.parse_args()
    rows = judged_rows(simulate(), SIMULATED_PLACE)[1]
    ensemble = AnomalyEnsemble().fit(rows[:20_000], seed=0)
    rows = rows[: options.rows]
    print(f"{len(rows):,} rows; {', '.join(one.kind for one in ensemble.detectors.values())}")
    off = np.abs(ensemble.attribute(rows).total - ensemble.score_rows(rows)["score"]).max()
    print(f"base + parts − score: at most {off:.1e}")
    if off > 1e-9:
        raise SystemExit("the parts do not add up")
    for name, call in parts_of_detectors(ensemble, rows).items():
        report(name, fastest(call), len(rows))
    report("ensemble: score", fastest(lambda: ensemble.score_rows(rows)), len(rows))
    report("ensemble: parts", fastest(lambda: ensemble.attribute(rows)), len(rows))
    bulk = fastest(lambda: ensemble.explain(rows, TOP))
    report(f"ensemble: the {TOP} largest, with names", bulk, len(rows))
    single = one_by_one(lambda row: ensemble.explain(row, TOP), rows[: options.calls])
    report("the same, one row per call", single, 1)
    seconds = shap_seconds(ensemble, rows[: options.shap_rows])
    if seconds is None:
        print("shap is not installed: no comparison")
    else:
        report("SHAP's TreeExplainer, the forest alone", seconds, min(options.shap_rows, len(rows)))
    reached = 1e6 * bulk / len(rows) <= GOAL
    print(f"goal of {GOAL:.0f} µs a row: {'reached' if reached else 'missed'} in bulk")


if __name__ == "__main__":
    main()
