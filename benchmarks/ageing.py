"""What is it worth that networks for days ahead learn from structures that have aged?

    python benchmarks/ageing.py [feeder] [cloudy_feeder] [vic_elec] [gefcom2014e] [isone_2003_2006] [--window 1] [--seed 0]

With less than a year of training origins half of the samples pretend that the structure (load by calendar and weather) expects too much by some
profile of the day, before and after the origin alike (`forecast.daily`). Here the mixture with all its members is fitted twice, with such
samples and without, on ten months of a system load and three months of validation; the four months behind them are forecast, LightGBM
beside. Windows 0 to 3 are spread evenly over the years before the test part of a set, of which nothing is used; `feeder` and
`cloudy_feeder` are the simulated ones of `habits.py`, with their own dates. The error is the mean absolute one a day ahead in percent of the mean absolute load.
"""

import argparse
import sys

import pandas as pd
from forecasts import SETTINGS, parser_of_sets
from habits import FEEDERS, MODELS, PLACE, TRAINING, chosen, errors, feeder

from smartgrid_ai.commands.options import Progress
from smartgrid_ai.data.sources import read_readings
from smartgrid_ai.evaluate.backtest import fit_horizon
from smartgrid_ai.forecast import daily
from smartgrid_ai.readings import Place
from smartgrid_ai.windows import Split, chronological_split

SETS = (*FEEDERS, "vic_elec", "gefcom2014e", "isone_2003_2006")
WINDOWS = 4
PARTS = (0, 10, 13, 17)  # months from the beginning of a window: train, validation, test, end


def window(name: str, options: argparse.Namespace) -> tuple[pd.DataFrame, Split, Place, str]:
    "Readings of one window, how they are divided and read."
    if name in FEEDERS:
        readings = feeder(name, options.seed)
        return readings, chronological_split(readings, PLACE), PLACE, "observed"
    setting, file = SETTINGS[name], options.data / f"{name}.parquet"
    place = setting.place
    readings = read_readings(file, unit=setting.unit, timezone=place.timezone)
    clock = readings["timestamp"].dt.tz_convert(place.timezone).dt.tz_localize(None)
    first = clock.min().normalize() + pd.Timedelta(days=1)
    last = pd.Timestamp(setting.dates[2]) - pd.DateOffset(months=PARTS[-1])
    start = (first + (last - first) * (options.window / (WINDOWS - 1))).normalize()
    begin, validation, test, end = (start + pd.DateOffset(months=months) for months in PARTS)
    dates = {"val_start": validation, "test_start": test, "test_end": end - pd.Timedelta(days=1)}
    told = {key: f"{day:%Y-%m-%d}" for key, day in dates.items()}
    readings = readings[(clock >= begin) & (clock < end)].reset_index(drop=True)
    return readings, chronological_split(readings, place, **told), place, setting.weather


def fitted_errors(readings, split: Split, place: Place, settings: dict, models) -> pd.Series:
    "Error of each model [%], from a fit of its own."
    progress = Progress()
    fitted, frame = fit_horizon(readings, split, models, 24, settings, progress=progress)
    progress.close()
    return errors(fitted.forecast(frame), place)["error"]


def measure(name: str, options: argparse.Namespace) -> None:
    "Fit twice, print."
    readings, split, place, weather = window(name, options)
    settings = TRAINING | {"place": place, "weather": weather, "seed": options.seed}
    with_ageing = fitted_errors(readings, split, place, settings, MODELS)
    share, daily.AGED = daily.AGED, 0.0
    try:
        own = tuple(model for model in MODELS if model not in ("seasonal_naive", "lightgbm"))
        without = fitted_errors(readings, split, place, settings, own)
    finally:
        daily.AGED = share
    for model, error in with_ageing.items():
        plain = f"{without[model]:>10.3f}{error / without[model]:>8.3f}" if model in without else ""
        print(f"{name:<18}{options.window:>7}  {model:<16}{error:>10.3f}{plain}", flush=True)


def parse() -> argparse.Namespace:
    "Options."
    parser = parser_of_sets(__doc__, SETS)
    parser.add_argument("--window", type=int, default=1, choices=range(WINDOWS))
    return parser.parse_args()


def main() -> int:
    "All sets, one after the other."
    options = parse()
    print(f"{'set':<18}{'window':>7}  {'model':<16}{'ageing, %':>10}{'none, %':>10}{'ratio':>8}")
    for name in chosen(options):
        measure(name, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
