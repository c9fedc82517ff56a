"""Are alarms on twelve planted kinds of fault found, and called by their right name?

    python benchmarks/kinds.py [--preset small] [--seeds 5] [--faults 2] [--models default,vote] [--named default]
    python benchmarks/kinds.py --teach

Simulated meters with twelve kinds of fault (`--faults 2`: twice as many as usual) go through the public `detect`, as a user's
file would; the labels are read only to count. An *event* is one fault of one meter; it is found when an alarm is raised in it. A
*false alarm* is a run of alarms that touches no fault. Event F1 is the harmonic mean of the share of runs that touch a fault
and the share of faults found. The name of an event is what the last run of alarms that touches it is called at its end. The row
`labels` names faults that are alarmed exactly where they are: what naming would be worth with a perfect detector. The seeds, from
101 on, are none of those that taught the kinds (`smartgrid_ai.anomaly.teaching.SEEDS`); `--teach` makes that table anew.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from smartgrid_ai.anomaly.detect import KNOWN_MODELS, MODELS, detect
from smartgrid_ai.anomaly.kinds import STORE, name_kinds, write_kind_model
from smartgrid_ai.anomaly.reasons import UNKNOWN, confusion
from smartgrid_ai.anomaly.teaching import SEEDS, teach
from smartgrid_ai.data.faults import scaled_faults
from smartgrid_ai.data.simulate import PRESETS, SIMULATED_PLACE, simulate
from smartgrid_ai.errors import DataError
from smartgrid_ai.evaluate.detection import events

MONTH = 8766 / 12  # hours
FIRST_SEED = 101
LABELS = "labels"  # a detector that alarms exactly where the faults are


def judged(readings: pd.DataFrame, models: tuple[str, ...], seed: int) -> pd.DataFrame:
    "Scores of every detector on the rows that are not for training, and of one that knows the labels."
    scores = detect(
        readings.drop(columns=["fault", "expected"]), models, seed, place=SIMULATED_PLACE
    )
    truth = readings[["meter_id", "timestamp", "fault"]].rename(columns={"meter_id": "series"})
    scores = scores.merge(truth, on=["series", "timestamp"], validate="many_to_one")
    known = scores[scores["model"] == models[0]]
    flags = known["fault"] != ""
    exact = known.assign(model=LABELS, alarm=flags, score=flags.astype(float))
    return pd.concat([scores, exact], ignore_index=True)


def events_of(rows: pd.DataFrame, named: bool) -> tuple[pd.DataFrame, int, int]:
    "Every fault in order (fault, found, kind, chance); how many runs of alarms there are, and how many are false."
    rows = rows.sort_values(["series", "timestamp"], ignore_index=True)
    runs = np.array(events(rows["alarm"], rows["series"])).reshape(-1, 2)
    owner = rows["series"] + "/" + rows["fault"]
    table = []
    for first, last in events(rows["fault"] != "", owner):
        touching = runs[(runs[:, 0] < last) & (runs[:, 1] > first)]
        one = {"fault": rows["fault"][first], "found": len(touching) > 0}
        if named and len(touching):
            end = touching[-1, 1] - 1
            one |= {"kind": rows["kind"][end], "chance": rows["kind_probability"][end]}
        table.append(one)
    fault = (rows["fault"] != "").to_numpy()
    false = sum(not fault[first:last].any() for first, last in runs)
    return pd.DataFrame(table), len(runs), false


def measured(rows: pd.DataFrame, named: bool) -> tuple[dict, pd.DataFrame]:
    "One line of the table of detectors, and the events."
    found, runs, false = events_of(rows, named)
    precision, recall = (runs - false) / max(runs, 1), found["found"].mean()
    line = {
        "events": len(found),
        "found": int(found["found"].sum()),
        "event F1": 2 * precision * recall / max(precision + recall, 1e-9),
        "false alarms per meter-month": false / (len(rows) / MONTH),
    }
    if named:
        told = found[found["found"]]
        line["right kind"] = (told["kind"] == told["fault"]).mean()
    return line, found


def report(scores: pd.DataFrame, named: tuple[str, ...]) -> None:
    "Print the table of detectors, and what is taken for what."
    lines, tables = {}, {}
    for model in scores["model"].unique():
        lines[model], tables[model] = measured(scores[scores["model"] == model], model in named)
    print(
        pd.DataFrame(lines).T.to_string(
            float_format=lambda value: f"{value:.3f}".removesuffix(".000")
        )
    )
    for model in named:
        told = tables[model][tables[model]["found"]]
        print(f"\n{model}: true kind down, named across; {len(told)} events with an alarm")
        crossed = confusion(told["fault"], told["kind"])
        right = (told["kind"] == told["fault"]).groupby(told["fault"]).mean()
        crossed.insert(0, "right", right.reindex(crossed.index).map("{:.0%}".format))
        print(crossed.rename(columns=lambda name: name[:8]).to_string())
        print(
            f"right kind first in {(told['kind'] == told['fault']).mean():.1%} of them, "
            f"mean over kinds {right.mean():.1%}; probability said {told['chance'].mean():.2f}; "
            f"called {UNKNOWN}: {(told['kind'] == UNKNOWN).mean():.1%}"
        )


def write_anew() -> None:
    "Teach, and overwrite the table of the package."
    import smartgrid_ai

    path = Path(smartgrid_ai.__file__).parent / "static" / STORE
    start = time.perf_counter()
    write_kind_model(teach(), path)
    print(f"{path.name} written from {len(SEEDS)} seeds in {time.perf_counter() - start:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--preset", default="small", choices=PRESETS)
    parser.add_argument("--seeds", type=int, default=5, help=f"how many, from {FIRST_SEED} on")
    parser.add_argument("--faults", type=float, default=2.0, help="times the usual rate")
    parser.add_argument("--models", default=",".join(MODELS), help=", ".join(KNOWN_MODELS))
    parser.add_argument("--named", default="default", help="detectors whose alarms are named")
    parser.add_argument("--teach", action="store_true", help="make the table of kinds anew")
    options = parser.parse_args()
    if options.teach:
        return write_anew()
    models = tuple(options.models.split(","))
    named = (*(name for name in options.named.split(",") if name in models), LABELS)
    parts = []
    for seed in range(FIRST_SEED, FIRST_SEED + options.seeds):
        readings = simulate(options.preset, seed, scaled_faults(options.faults))
        scores = judged(readings, models, seed)
        told = name_kinds(scores[scores["model"].isin(named)], readings, SIMULATED_PLACE)
        scores = scores.join(told[["kind", "kind_probability"]])
        parts.append(scores.assign(series=scores["series"] + f" of seed {seed}"))
        print(
            f"seed {seed}: {len(readings):,} rows, {(readings['fault'] != '').mean():.1%} faulty",
            flush=True,
        )
    report(pd.concat(parts, ignore_index=True), named)


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        sys.exit(str(error))
