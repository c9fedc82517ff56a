"""Meters that were not trained on: what a forecast errs with no, a little, and a year of their history.

    python benchmarks/new_meters.py [--horizons 1 24] [--epochs N] [--experts dense tree ...] [--out FILE.md]

Of the 36 buildings of the Cambridge set six, drawn by seed, are left out; a mixture learns from the others (train from
2013, validation from October 2014). Then the six are forecast through the test year 2015 as if they had just been
installed: at each issue the readings given, load and weather, begin 0, 1, 3, 7 or 14 days before it, or a full year.
The error is the WAPE over all issues and meters, and the number that counts is its ratio to the one with a year. With
no history the level comes from the caller (`Forecaster.predict(levels=...)`), as from a contract: here the mean of the
year before the issue. One of the six uses a quarter of that in the test year; another line tells the mean of the four weeks before instead, and
one shows what happens when nobody tells a level. The last one is no forecast but a yardstick for those
without history: for each of the six the one building of the others that turned out to be most alike in the test year, its load of the very
hour forecast, at the level told. Issues are five days apart, so that they fall on all weekdays: a day of history says less on a Monday than on a
Thursday. Beside each error stands the share of hours that the 80 and the 95 % interval hold.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from smartgrid_ai.data.sources import read_readings
from smartgrid_ai.forecast.experts import EXPERTS
from smartgrid_ai.forecast.forecaster import Forecaster
from smartgrid_ai.readings import Place
from smartgrid_ai.windows import chronological_split

ROOT = Path(__file__).resolve().parents[1]
PLACE = Place("Europe/London", "GB", "ENG")
DATES = {
    "train_start": "2013-01-01",
    "val_start": "2014-10-01",
    "test_start": "2015-01-01",
    "test_end": "2015-12-31",
}
TARGETS = {0: 2.0, 1: 1.3, 3: 1.2, 7: 1.1, 14: 1.05}  # days of history: ratio at most
YEAR = 365  # days
MONTH = 28  # days
HOUR = pd.Timedelta(hours=1)


def issues(horizon: int, every: int, split, seed: int) -> list[pd.Timestamp]:
    "Instants of issue: midnights for the day ahead, three hours of each of those days for the next hour."
    days = pd.date_range(split.test_start, split.test_end - 25 * HOUR, freq=f"{every}D")
    if horizon > 1:
        return list(days)
    hours = np.random.default_rng(seed).permuted(np.tile(np.arange(24), (len(days), 1)), axis=1)
    return [day + int(hour) * HOUR for day, row in zip(days, hours) for hour in row[:3]]


def cut(readings: pd.DataFrame, issue: pd.Timestamp, days: int, horizon: int) -> pd.DataFrame:
    "Readings as a forecaster finds them at an issue: load before it, weather to the last hour ahead."
    stamps = readings["timestamp"]
    inside = (stamps >= issue - days * 24 * HOUR) & (stamps < issue + horizon * HOUR)
    part = readings[inside].copy()
    part["consumption"] = part["consumption"].where(part["timestamp"] < issue)
    part["meter_id"] = part["meter_id"] + f" {issue:%Y-%m-%d %H}"
    return part


def stretches(meters: pd.DataFrame, issued: list, days: int, horizon: int) -> pd.DataFrame:
    "One short-lived meter for each meter and issue."
    parts = [cut(meters, issue, days, horizon) for issue in issued]
    return pd.concat(parts).sort_values(["meter_id", "timestamp"], ignore_index=True)


def known_levels(meters: pd.DataFrame, issued: list, days: int = YEAR) -> dict[str, float]:
    "Mean load of so many days before each issue [W], by short-lived meter."
    by_meter = meters.pivot(index="timestamp", columns="meter_id", values="consumption")
    mean = by_meter.rolling(days * 24, min_periods=24).mean().shift(1)
    return {
        f"{meter} {issue:%Y-%m-%d %H}": float(mean.at[issue, meter])
        for issue in issued
        for meter in mean
    }


def errors(
    forecaster: Forecaster, meters: pd.DataFrame, issued: list, horizon: int, days: int, levels=None
):
    "Absolute errors and loads of all forecast hours, the same hours for every history."
    groups = np.array_split(np.arange(len(issued)), 12 if days == YEAR else 1)
    parts = []
    for group in groups:
        given = stretches(meters, [issued[i] for i in group], days, horizon)
        parts.append(
            forecaster.predict(given, levels=levels) if levels else forecaster.predict(given)
        )
    table = pd.concat(parts, ignore_index=True)
    table["meter_id"] = table["meter_id"].str.slice(0, -14)
    truth = meters[["meter_id", "timestamp", "consumption"]]
    return table.merge(truth, on=["meter_id", "timestamp"]).dropna(subset="consumption")


def most_alike(readings: pd.DataFrame, apart: list[str], table: pd.DataFrame) -> float:
    "WAPE over the forecast hours of a table, of the building that afterwards proves most alike."
    by_meter = readings.pivot(index="timestamp", columns="meter_id", values="consumption")
    usual = by_meter.rolling(YEAR * 24, min_periods=24).mean().shift(1)
    relative = (by_meter / usual).drop(columns=apart)
    missed = 0.0
    for meter, hours in table.groupby("meter_id"):
        others = relative.loc[hours["timestamp"]].mul(usual.loc[hours["timestamp"], meter], axis=0)
        far = others.sub(hours.set_index("timestamp")["consumption"], axis=0).abs()
        missed += far.mean().min() * len(hours)
    return 100 * missed / table["consumption"].sum()


def wape(table: pd.DataFrame) -> float:
    "Sum of misses over sum of load, %."
    return (
        100 * (table["prediction"] - table["consumption"]).abs().sum() / table["consumption"].sum()
    )


def row(horizon: int, name: str, table: pd.DataFrame, year: float, target: str = "") -> tuple:
    "One line: the error, its ratio to that with a year, and what the intervals hold."
    held = [
        100 * table["consumption"].between(table[low], table[high]).mean()
        for low, high in (("q0.1", "q0.9"), ("q0.025", "q0.975"))
    ]
    return horizon, name, wape(table), wape(table) / year, *held, target


def measure(horizon: int, readings: pd.DataFrame, apart: list[str], options) -> list[tuple]:
    "Rows of the table for one horizon."
    split = chronological_split(readings, PLACE, **DATES)
    start = split.train_start - pd.Timedelta(weeks=5)
    readings = readings[readings["timestamp"] >= start].reset_index(drop=True)
    out = readings["meter_id"].isin(apart)
    seen = readings[~out & (readings["timestamp"] < split.test_start)].reset_index(drop=True)
    forecaster = Forecaster(
        "moe",
        PLACE,
        horizon=horizon,
        epochs=options.epochs,
        experts=tuple(options.experts),
        seed=options.seed,
    )
    forecaster.fit(seen, split)
    meters, issued = (
        readings[out].reset_index(drop=True),
        issues(horizon, options.every, split, options.seed),
    )
    full = errors(forecaster, meters, issued, horizon, YEAR)
    year = wape(full)
    rows = [row(horizon, "a year", full, year)]
    levels = known_levels(meters, issued)
    for days, target in TARGETS.items():
        told = levels if days == 0 else None
        table = errors(forecaster, meters, issued, horizon, days, told)
        rows.append(row(horizon, f"{days} days", table, year, f"≤ {target}"))
    latest = known_levels(meters, issued, MONTH)
    for name, told in (("mean of four weeks told", latest), ("level unknown", None)):
        table = errors(forecaster, meters, issued, horizon, 0, told)
        rows.append(row(horizon, f"0 days, {name}", table, year))
    known, name = most_alike(readings, apart, full), "0 days, most alike building, known afterwards"
    rows.append((horizon, name, known, known / year, np.nan, np.nan, ""))
    return rows


def markdown(rows: list[tuple]) -> str:
    "The table."
    lines = ["| hours ahead | history | WAPE % | ratio | 80 % holds | 95 % holds | target |"]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [
        f"| {h} | {name} | {error:.2f} | {ratio:.3f} | {held:.1f} | {most:.1f} | {target} |"
        for h, name, error, ratio, held, most, target in rows
    ]
    return "\n".join(lines) + "\n"


def parse() -> argparse.Namespace:
    "Options."
    shared = Path(os.environ.get("SMARTGRID_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--horizons", type=int, nargs="+", default=[1, 24], choices=(1, 24))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--experts", nargs="+", default=list(EXPERTS), choices=EXPERTS)
    parser.add_argument("--meters", type=int, default=6, help="left out (default: 6)")
    parser.add_argument("--every", type=int, default=5, metavar="DAYS", help="between issues")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=shared / "data" / "load" / "cambridge.parquet")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    return parser.parse_args()


def main() -> int:
    "Both horizons."
    options = parse()
    if not options.data.is_file():
        print(
            f"left out: {options.data} is not there; name its folder with SMARTGRID_SHARED",
            file=sys.stderr,
        )
        return 0
    readings = read_readings(options.data, unit="kWh", timezone=PLACE.timezone)
    names = readings["meter_id"].unique()
    drawn = np.random.default_rng(options.seed).choice(len(names), options.meters, replace=False)
    rows = []
    for horizon in options.horizons:
        rows += measure(horizon, readings, [str(names[i]) for i in sorted(drawn)], options)
        text = markdown(rows)
        if options.out:
            options.out.write_text(text)
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
