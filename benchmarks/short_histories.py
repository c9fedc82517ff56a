"""Forecasts from a few weeks of readings: what the default settings make of a short file, LightGBM beside.

    python benchmarks/short_histories.py [SET ...] [--weeks 8 16 32] [--windows 4] [--horizon 24] [--seed 0]

Windows are spread evenly over the years before the test part of a set (system loads with observed weather), so that they end in
all seasons; nothing else of the set is shown. Of the weeks three quarters are to learn from and the last quarter is validation; the
four weeks behind them are forecast by `smartgrid backtest` with default settings. Errors are the WAPE in percent, means over the windows; *worst window*
is the largest error of the mixture as a multiple of LightGBM's there. Other options are handed on to `smartgrid backtest`.
"""

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from forecasts import EXPERTS, SETTINGS, TASKS, Setting, backtest_command, parser_of_sets, present

from smartgrid_ai.data.sources import read_readings
from smartgrid_ai.evaluate.files import read_forecasts

SETS = ("vic_elec", "gefcom2014e", "isone_2003_2006")
TESTED = pd.Timedelta(weeks=4)
HEADER = (
    "set", "task", "weeks", "windows", "same hour last week", "RF + ET → Ridge", "LightGBM", "best expert", "**mixture**",
    "mixture / LightGBM", "worst window",
)  # fmt: skip


def windows(setting: Setting, readings: pd.DataFrame, weeks: int, count: int) -> list[Setting]:
    "The setting, cut differently so many times."
    span = pd.Timedelta(weeks=weeks)
    clock = readings["timestamp"].dt.tz_convert(setting.place.timezone).dt.tz_localize(None)
    first = clock.min().normalize() + pd.Timedelta(days=1)
    last = pd.Timestamp(setting.dates[2]) - span - TESTED
    starts = [(first + (last - first) * (i / max(count - 1, 1))).normalize() for i in range(count)]
    cuts = [(a, a + 0.75 * span, a + span, a + span + TESTED) for a in starts]
    return [
        replace(
            setting, dates=tuple(f"{d:%Y-%m-%d}" for d in (*cut[:3], cut[3] - pd.Timedelta(days=1)))
        )
        for cut in cuts
    ]


def errors(
    setting: Setting, readings: pd.DataFrame, horizon: int, seed: int, extra: list[str]
) -> pd.Series:
    "WAPE [%] of each model in one window, from a file that holds nothing else."
    zone = setting.place.timezone
    begin, end = (pd.Timestamp(setting.dates[i], tz=zone) for i in (0, 3))
    inside = (readings["timestamp"] >= begin) & (readings["timestamp"] < end + pd.Timedelta(days=1))
    with TemporaryDirectory() as folder:
        file, made = Path(folder) / "readings.parquet", Path(folder) / "forecasts.parquet"
        readings[inside].to_parquet(file)
        told = replace(setting, unit="W")
        command = backtest_command(told, file, made, horizon, seed, extra)
        print("$ " + " ".join(command), file=sys.stderr, flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        table = read_forecasts(made, place=setting.place).dropna(subset="actual")
    missed = (table["prediction"] - table["actual"]).abs().groupby(table["model"]).sum()
    return 100 * missed / table["actual"].groupby(table["model"]).sum()


def row(name: str, weeks: int, options: argparse.Namespace, extra: list[str]) -> list[str]:
    "All windows of a set, one line of the table."
    setting = SETTINGS[name]
    file = options.data / f"{name}.parquet"
    readings = read_readings(file, unit=setting.unit, timezone=setting.place.timezone)
    cuts = windows(setting, readings, weeks, options.windows)
    told = [errors(cut, readings, options.horizon, options.seed, extra) for cut in cuts]
    by_window = pd.DataFrame(told)
    mean = by_window.mean()
    experts = mean[mean.index.isin(EXPERTS)]
    shown = [f"{mean[m]:.2f}" for m in ("seasonal_naive", "baseline", "lightgbm")]
    return [
        name, TASKS[options.horizon], str(weeks), str(len(cuts)), *shown, f"{experts.min():.2f} ({experts.idxmin()})",
        f"**{mean['moe']:.2f}**", f"{mean['moe'] / mean['lightgbm']:.3f}",
        f"{(by_window['moe'] / by_window['lightgbm']).max():.2f}",
    ]  # fmt: skip


def parse() -> tuple[argparse.Namespace, list[str]]:
    "Own options, and those for `smartgrid backtest`."
    parser = parser_of_sets(__doc__, SETS)
    parser.add_argument("--weeks", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--horizon", type=int, default=24, choices=(1, 24))
    return parser.parse_known_args()


def main() -> int:
    "All sets and lengths, one line each."
    options, extra = parse()
    print("| " + " | ".join(HEADER) + " |\n" + "|---" * len(HEADER) + "|", flush=True)
    for name in present(options.sets, options.data):
        for weeks in options.weeks:
            print("| " + " | ".join(row(name, weeks, options, extra)) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
