"""Are alarms on twelve planted kinds of fault found, and called by their right name?

    python benchmarks/kinds.py [--preset small] [--seeds 5] [--first 101] [--faults 2] [--models default,vote] [--named default]
    python benchmarks/kinds.py --teach

Simulated meters with twelve kinds of fault (`--faults 2`: twice as many as usual) go through the public `detect`, as a user's
file would; the labels are read only to count. An *event* is one fault of one meter; it is found when an alarm is raised in it. A
*false alarm* is a run of alarms that touches no fault. Event F1 is the harmonic mean of the share of runs that touch a fault
and the share of faults found. *Hours F1* and *sound hours flagged* count single hours. The name of an event is what the last run of alarms that touches it is called at its end. The row
`labels` names faults that are alarmed exactly where they are: what naming would be worth with a perfect detector. The seeds, from
101 on unless `--first` says otherwise, are none of those that taught the kinds (`smartgrid_ai.anomaly.teaching.SEEDS`); `--teach` makes that table anew.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd

from smartgrid_ai.anomaly.detect import KNOWN_MODELS, MODELS, detect
from smartgrid_ai.anomaly.kinds import STORE, name_kinds, write_kind_model
from smartgrid_ai.anomaly.reasons import UNKNOWN, confusion
from smartgrid_ai.anomaly.teaching import SEEDS, teach
from smartgrid_ai.data.faults import scaled_faults
from smartgrid_ai.data.simulate import PRESETS, SIMULATED_PLACE, simulate
from smartgrid_ai.errors import DataError
from smartgrid_ai.evaluate.detection import event_metrics
from smartgrid_ai.evaluate.kinds import SOUND, found_events, named_events

FIRST_SEED = 101
LABELS = "labels"  # a detector that alarms exactly where the faults are


def judged(readings: pd.DataFrame, models: tuple[str, ...], seed: int) -> pd.DataFrame:
    "Scores of every detector on the rows that are not for training, and of one that knows the labels."
    scores = detect(
        readings.drop(columns=["fault", "expected"]), models, seed, place=SIMULATED_PLACE
    )
    truth = readings[["meter_id", "timestamp", "fault"]].rename(columns={"meter_id": "series"})
    scores = scores.merge(truth, on=["series", "timestamp"], validate="many_to_one")
    scores = scores.assign(label=scores["fault"] != "")
    known = scores[scores["model"] == models[0]]
    exact = known.assign(model=LABELS, alarm=known["label"], score=known["label"].astype(float))
    return pd.concat([scores, exact], ignore_index=True)


def measured(rows: pd.DataFrame, named: bool) -> tuple[dict, pd.DataFrame]:
    "One line of the table of detectors, and the faults it found."
    told = named_events(rows)
    faults, found = (told["fault"] != SOUND).sum(), found_events(rows)
    figures = event_metrics(rows["label"], rows["alarm"], rows["series"], rows["timestamp"])
    hit, flagged = (rows["alarm"] & rows["label"]).sum(), rows["alarm"].sum()
    line = {
        "events": faults,
        "found": len(found),
        "event F1": figures["event_f1"],
        "false alarms per meter-month": figures["false_alarms_per_month"],
        "hours F1": 2 * hit / (flagged + rows["label"].sum()),
        "sound hours flagged, %": 100 * (flagged - hit) / (~rows["label"]).sum(),
    }
    return line | ({"right kind": found["right"].mean()} if named else {}), found


def report(scores: pd.DataFrame, named: tuple[str, ...]) -> None:
    "Print the table of detectors, and what is taken for what."
    scores = scores.sort_values(["model", "series", "timestamp"], kind="stable")
    lines, tables = {}, {}
    for model, rows in scores.groupby("model"):
        lines[model], tables[model] = measured(rows.reset_index(drop=True), model in named)
    print(
        pd.DataFrame(lines).T.to_string(
            float_format=lambda value: f"{value:.3f}".removesuffix(".000")
        )
    )
    for model in named:
        found = tables[model]
        print(f"\n{model}: true kind down, named across; {len(found)} events with an alarm")
        crossed = confusion(found["fault"], found["kind"])
        right = found["right"].groupby(found["fault"]).mean()
        crossed.insert(0, "right", right.reindex(crossed.index).map("{:.0%}".format))
        print(crossed.rename(columns=lambda name: name[:8]).to_string())
        print(
            f"right kind first in {found['right'].mean():.1%} of them, "
            f"mean over kinds {right.mean():.1%}; probability said {found['probability'].mean():.2f}; "
            f"called {UNKNOWN}: {(found['kind'] == UNKNOWN).mean():.1%}"
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
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="first seed")
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
    for seed in range(options.first, options.first + options.seeds):
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
