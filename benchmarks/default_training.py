"""How long the default mixture takes to train: an hour and a day ahead, side by side on the cores there are.

    python benchmarks/default_training.py [vic_elec] [cambridge] [--seed 0]

The mixture with all its members learns from the readings before the test part of a set, with default settings, as in `smartgrid
backtest`: features, references, six experts, gate, corrections, intervals and the catching up on the validation hours. Reading the file,
forecasting and judging the test part are not counted. Tasks train side by side, each on one thread; a core whose task is done helps
with the other. *Computing* is the time of all their processes; *memory* is the peak of the process that trains the task, with all readings in it.
"""

import argparse
import resource
import sys
import time
from inspect import signature

import pandas as pd
from forecasts import SETTINGS, TASKS, parser_of_sets, present

from smartgrid_ai.commands.options import Progress
from smartgrid_ai.data.sources import read_readings
from smartgrid_ai.evaluate.backtest import backtest, fit_horizon, with_lead
from smartgrid_ai.parallel import run_side_by_side
from smartgrid_ai.windows import Split, chronological_split

SETS = ("vic_elec", "cambridge")
HORIZONS = (1, 24)
CHOICES = ("epochs", "batches", "trees", "weather_error")
DEFAULTS = {name: signature(backtest).parameters[name].default for name in CHOICES}


def fit(
    readings: pd.DataFrame, split: Split, horizon: int, settings: dict, progress=None
) -> dict[str, float]:
    "In a process of its own: train one task, and what it took."
    wall, computing = time.perf_counter(), computed()
    fit_horizon(readings, split, ("moe",), horizon, settings, progress=progress)
    return {
        "wall": time.perf_counter() - wall,
        "computing": computed() - computing,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def computed() -> float:
    "CPU-seconds of this process and of its helpers that have ended."
    helpers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + helpers.ru_utime + helpers.ru_stime


def measure(name: str, options: argparse.Namespace) -> None:
    "Both tasks of a set, one line each, and the set."
    setting = SETTINGS[name]
    place = setting.place
    file = options.data / f"{name}.parquet"
    readings = read_readings(file, unit=setting.unit, timezone=place.timezone)
    dates = {key.replace("-", "_"): day for key, day in setting.split.items()}
    split = chronological_split(readings, place, **dates)
    readings = with_lead(readings, split)
    told = {"place": place, "weather": setting.weather, "seed": options.seed}
    told |= DEFAULTS | {"tuned": {}}
    jobs = {TASKS[horizon]: (readings, split, horizon, told) for horizon in HORIZONS}
    begun, progress = time.perf_counter(), Progress()
    results = run_side_by_side(fit, jobs, progress)
    took = time.perf_counter() - begun
    progress.close()
    for task, each in zip(jobs, results, strict=True):
        print(line(name, task, each["wall"], each["computing"], each["memory"]), flush=True)
    computing = sum(each["computing"] for each in results)
    print(line(name, "both", took, computing), flush=True)


def line(name: str, task: str, wall: float, computing: float, memory: float | None = None) -> str:
    "One row of the table."
    peak = f"{memory:.2f}" if memory else ""
    return f"{name:<12}{task:>6}{wall:>12.0f}{computing:>14.0f}{peak:>14}"


def main() -> int:
    "All sets, one after the other."
    options = parser_of_sets(__doc__, SETS).parse_args()
    print(f"{'set':<12}{'task':>6}{'wall, s':>12}{'computing, s':>14}{'memory, GiB':>14}")
    for name in present(options.sets, options.data):
        measure(name, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
