"""Faults planted into real readings: is the default detector better than the textbook on loads it was not built on?

    python benchmarks/planted.py [--sets vic_elec london_lcl …] [--meters 8] [--years 2] [--seeds 3] [--faults 2] [--models NAMES]
    python benchmarks/planted.py load.csv --unit kWh --timezone Europe/London --country GB

Any file that `smartgrid detect` reads, told by the same options, or without one the public sets of `forecasts.py`. Of each set the
last `--years` and at most `--meters` meters (drawn, seed 0) are taken. The first half of each meter is left as it is and learned
from; the second half gets the simulator's kinds of faults (`smartgrid_ai.data.planting`) in places drawn by seed, twice as often as the
simulator has them (`--faults 2`), and is judged. Every detector of `smartgrid detect` runs with its default settings and the
threshold it chooses without labels.

What the figures say. AUC-PR and VUS-PR are means over the meters, beside the base rate, which is what a blind guess gets. Event F1,
recall (the share of planted faults with an alarm) and false alarms (runs of alarms that touch no planted fault, per meter and month)
stand for the automatic threshold, FAR is the share of hours without a planted fault that are flagged. `right kind` is the share
of the faults found that are called by their name. The ratio is that of the mean AUC-PR; the bootstrap draws meters anew, each with
the mean over its seeds.

What they do not say. Real readings have real anomalies, which nobody labelled: an alarm there counts as false and a high score there
lowers AUC-PR, for every detector. And the faults are this package's own idea of faults, whose strengths come from its simulator: a
detector of this package has the advantage of the home ground, though no setting was chosen on these figures.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from forecasts import ROOT, SETTINGS, present

from smartgrid_ai.anomaly.detect import KNOWN_MODELS, MODELS, detect
from smartgrid_ai.anomaly.kinds import name_kinds
from smartgrid_ai.commands.options import names, positive, reading_options, source_of
from smartgrid_ai.data.faults import scaled_faults
from smartgrid_ai.data.planting import plant_in_readings, unfit_meters
from smartgrid_ai.errors import DataError
from smartgrid_ai.evaluate.alarms import join_readings
from smartgrid_ai.evaluate.detection import detector_metrics
from smartgrid_ai.evaluate.kinds import SOUND, found_events, named_events
from smartgrid_ai.evaluate.paired import paired_bootstrap, paired_values
from smartgrid_ai.readings import Place
from smartgrid_ai.workflow import Source

SUBJECT = "default"
LATITUDES = {"vic_elec": -37.8}  # of the rest, 45 degrees north are near enough
SHOWN = {
    "auc_pr": "AUC-PR", "vus_pr": "VUS-PR", "event_f1": "event F1", "event_recall": "recall",
    "false_alarms_per_month": "false alarms", "false_alarm_rate": "FAR %", "right_kind": "right kind",
}  # fmt: skip


# What is judged


def excerpt(readings: pd.DataFrame, years: float, most: int) -> tuple[pd.DataFrame, list[str]]:
    """The last years of some meters that have enough readings there, and what had to be left out, in words.

    `DataError` when no meter is left.
    """
    start = readings["timestamp"].max() - pd.Timedelta(hours=round(8766 * years))
    columns = ["meter_id", "timestamp", "consumption", "temperature", "voltage", "frequency"]
    late = readings.loc[readings["timestamp"] > start, [c for c in columns if c in readings]]
    unfit = unfit_meters(late)
    notes = [f"meter {meter} left out: {lack}" for meter, lack in unfit.items()]
    fit = sorted(set(late["meter_id"]) - set(unfit))
    if not fit:
        raise DataError(
            f"no meter has enough readings in the last {years:g} years; {notes[0] if notes else 'there is none'}"
        )
    if len(fit) > most:
        notes.append(f"{most} of {len(fit)} meters drawn")
        fit = sorted(np.random.default_rng(0).choice(fit, most, replace=False))
    return late[late["meter_id"].isin(fit)].reset_index(drop=True), notes


def judged(planted: pd.DataFrame, models: tuple[str, ...], seed: int, place: Place) -> pd.DataFrame:
    "Every detector's scores of the second half, with the planted truth and the kinds that were named."
    scores = detect(planted.drop(columns="fault"), models, seed, place=place)
    scores = name_kinds(scores, planted, place, models=(SUBJECT,))
    rows = join_readings(scores, planted)
    return rows.assign(meter=rows["series"], series=rows["series"] + f", seed {seed}")


# What comes of it


def right_share(rows: pd.DataFrame) -> float:  # rows of one model
    "Share of the faults found that are called by their right name; nan when none was found or named."
    return float(found_events(rows)["right"].mean()) if (rows["kind"] != "").any() else np.nan


def areas_of(rows: pd.DataFrame) -> pd.DataFrame:  # model, series (the meter), auc_pr, vus_pr
    "Areas of each detector on each meter: the mean over those of its seeds that spoiled it."
    each = detector_metrics(rows, rows, by=("model", "meter", "series"))
    means = each.groupby(["model", "meter"], sort=False)[["auc_pr", "vus_pr"]].mean()
    return means.reset_index().rename(columns={"meter": "series"})


def table_of(rows: pd.DataFrame, areas: pd.DataFrame) -> pd.DataFrame:
    "One line per detector, best AUC-PR first: areas are means over meters, the rest is pooled."
    table = detector_metrics(rows, rows).set_index("model")
    means = areas.groupby("model")[["auc_pr", "vus_pr"]].mean()
    own = {model: right_share(part) for model, part in rows.groupby("model")}
    table = table.assign(**means, right_kind=pd.Series(own))
    return table.sort_values("auc_pr", ascending=False, kind="stable")


def contests(areas: pd.DataFrame) -> list[str]:
    "The default against each other detector by AUC-PR, the best of them first."
    values = areas.rename(columns={"auc_pr": "value"})
    others = [model for model in dict.fromkeys(values["model"]) if model != SUBJECT]
    means = paired_values(values, [SUBJECT, *others]).mean()
    lines = []
    for rival in means[others].sort_values(ascending=False).index:
        outcome = paired_bootstrap(values, SUBJECT, rival)
        line = f"{SUBJECT} / {rival}: {means[SUBJECT] / means[rival]:.2f}"
        line += f", difference {outcome['difference']:+.3f}"
        if np.isfinite(outcome["low"]):
            line += f" ({outcome['low']:+.3f} to {outcome['high']:+.3f}), ahead in {outcome['wins']:.0%} of draws"
        lines.append(line)
    return lines


def page(name: str, rows: pd.DataFrame, areas: pd.DataFrame) -> str:
    "Table and contests of one set."
    table = table_of(rows, areas)
    one = rows[rows["model"] == rows["model"].iloc[0]]
    faults = named_events(one)
    shown = table[list(SHOWN)].assign(false_alarm_rate=100 * table["false_alarm_rate"])
    text = shown.rename(columns=SHOWN).to_string(float_format="{:.3f}".format, na_rep="–")
    head = (
        f"{name}: {one['meter'].nunique()} meters, {len(one):,} hours judged, "
        f"{(faults['fault'] != SOUND).sum()} faults, base rate {one['label'].mean():.3f}"
    )
    return "\n".join([head, text, "AUC-PR, paired over meters:", *contests(areas)])


# Sources


def public_sources(options: argparse.Namespace) -> Iterator[tuple[str, Source, float]]:
    "Name, source and latitude of each public set that is there."
    for name in present(options.sets or list(SETTINGS), options.folder):
        setting = SETTINGS[name]
        place = (setting.place.timezone, setting.place.country, setting.place.subdivision)
        named = dict(zip(("timezone", "country", "subdivision"), place))
        path = str(options.folder / f"{name}.parquet")
        yield name, Source(path, unit=setting.unit, **named), LATITUDES.get(name, options.latitude)


def sources(options: argparse.Namespace) -> Iterator[tuple[str, Source, float]]:
    "The file that was named, else the public sets."
    if options.data is None:
        return public_sources(options)
    return iter([(Path(options.data).name, source_of(options), options.latitude)])


def run_set(name: str, source: Source, latitude: float, options: argparse.Namespace):
    "What every detector says of one set, all seeds together, and its areas on each meter."
    start = time.perf_counter()
    readings, notes = excerpt(source.read(), options.years, options.meters)
    for note in notes:
        print(f"{name}: {note}", file=sys.stderr)
    faults, place, parts = scaled_faults(options.faults), source.place, []
    for seed in range(options.seeds):
        planted = plant_in_readings(readings, faults, seed, place.timezone, latitude)
        parts.append(judged(planted, options.models, seed, place))
    rows = pd.concat(parts, ignore_index=True)
    areas = areas_of(rows)
    print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return rows, areas


def parse() -> argparse.Namespace:
    "Options."
    shared = Path(os.environ.get("SMARTGRID_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", metavar="FILE", help="CSV or Parquet file of readings")
    reading_options(parser.add_argument_group("the file"))
    parser.add_argument("--latitude", type=float, default=45.0, help="degrees north (default: 45)")
    parser.add_argument(
        "--sets", nargs="+", choices=SETTINGS, metavar="SET", help=f"of {', '.join(SETTINGS)}"
    )
    parser.add_argument("--folder", type=Path, default=shared / "data" / "load", help="of the sets")
    parser.add_argument("--meters", type=positive, default=8, help="at most (default: 8)")
    parser.add_argument("--years", type=float, default=2.0, help="the last ones (default: 2)")
    parser.add_argument("--seeds", type=positive, default=3, help="how many, from 0 on")
    parser.add_argument("--faults", type=float, default=2.0, help="times the usual rate")
    parser.add_argument("--models", help=f"comma-separated, of {', '.join(KNOWN_MODELS)}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write what is printed there")
    options = parser.parse_args()
    options.models = tuple(dict.fromkeys((SUBJECT, *names(options.models, MODELS))))
    return options


def main() -> int:
    "Set by set, then all meters together."
    options = parse()
    shown, everything = [], []
    for name, source, latitude in sources(options):
        rows, areas = run_set(name, source, latitude, options)
        shown.append(page(name, rows, areas))
        everything.append(areas.assign(series=f"{name}/" + areas["series"]))
        print(shown[-1] + "\n", flush=True)
    if len(everything) > 1:
        together = pd.concat(everything, ignore_index=True)
        head = f"all {len(everything)} sets, {together['series'].nunique()} meters, AUC-PR, paired over meters:"
        shown.append("\n".join([head, *contests(together)]))
        print(shown[-1], flush=True)
    if options.out:
        options.out.write_text("```\n" + "\n\n".join(shown) + "\n```\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DataError as error:
        sys.exit(str(error))
