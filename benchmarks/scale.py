"""A backtest of two thousand meters over two years: how much memory, how long?

    python benchmarks/scale.py [--meters 2000] [--years 2] [--most-rows N] [--epochs 2] [--models NAMES] [--horizon 24]

The meters are the simulator's (households, shops, offices and industry, each with a character of its own), generated one
after the other into a Parquet file whose row groups are meters, so that neither the generator nor the backtest ever holds
them all. Then `smartgrid backtest` runs on the file in a process of its own, as a person would run it, and its largest
resident memory and its time are printed, with the errors. The memory should depend on `--most-rows`, not on `--meters`.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from smartgrid_ai.data import simulate as simulator
from smartgrid_ai.data.stream import TableWriter

KINDS = tuple(simulator.KINDS)


def generate(path: Path, meters: int, years: float, seed: int = 0) -> int:
    "Write simulated meters, one row group each; returns the number of rows."
    hours = pd.date_range("2014-01-01", periods=int(years * 8760), freq="h", tz="UTC", unit="us")
    streams = np.random.SeedSequence(seed).spawn(meters + 1)
    shared, *own = (np.random.Generator(np.random.PCG64(stream)) for stream in streams)
    calendar, weather = simulator._calendar(hours), simulator._weather(hours, shared)
    frequency = np.full(len(hours), 50.0)
    with TableWriter(path) as table:
        for number, generator in enumerate(own):
            kind = simulator.KINDS[KINDS[number % len(KINDS)]]
            meter = simulator._healthy_meter(kind, calendar, weather, frequency, generator)
            meter = meter[["timestamp", "consumption", "temperature"]].astype(
                {"consumption": "float32", "temperature": "float32"}
            )
            meter.insert(0, "meter_id", f"m{number:06d}")
            table.write(meter)
    return table.rows


def backtest(data: Path, folder: Path, options: argparse.Namespace) -> None:
    "Run the command and print what it took."
    place = simulator.SIMULATED_PLACE
    words = [
        "backtest",
        data,
        "--unit",
        "W",
        "--timezone",
        place.timezone,
        "--country",
        place.country,
    ]
    words += ["--horizon", options.horizon, "--models", options.models, "--epochs", options.epochs]
    words += ["--forecasts", folder / "forecasts.parquet"]
    if options.most_rows:
        words += ["--most-rows", options.most_rows]
    start = time.perf_counter()
    program = Path(sys.executable).with_name("smartgrid")
    done = subprocess.run([str(program), *map(str, words)], check=False)
    if done.returncode:
        sys.exit(f"smartgrid backtest ended with {done.returncode}: see above")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"largest resident memory of one process: {used.ru_maxrss / 2**20:.2f} GiB")
    print(
        f"seconds: {time.perf_counter() - start:.0f}, of computing: {used.ru_utime + used.ru_stime:.0f}"
    )
    print(f"forecasts: {(folder / 'forecasts.parquet').stat().st_size / 2**20:.0f} MiB")


def parse() -> argparse.Namespace:
    "Options."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--meters", type=int, default=2000)
    parser.add_argument("--years", type=float, default=2.0)
    parser.add_argument("--most-rows", type=int, help="default: as of smartgrid backtest")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--horizon", default="24")
    parser.add_argument("--models", default="seasonal_naive,dense,tree")
    return parser.parse_args()


def main() -> int:
    "Generate, then run."
    options = parse()
    with TemporaryDirectory() as folder:
        data = Path(folder) / "meters.parquet"
        start = time.perf_counter()
        rows = generate(data, options.meters, options.years)
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{options.meters:,} meters, {rows:,} rows, {data.stat().st_size / 2**20:.0f} MiB, generated in "
            f"{time.perf_counter() - start:.0f} s with {own:.2f} GiB", flush=True,
        )  # fmt: skip
        backtest(data, Path(folder), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
