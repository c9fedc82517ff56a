"""How long do the 31 features of ten meters take, against the same features in plain pandas and polars?

    python benchmarks/features.py [--meters 10] [--hours 41505] [--rounds 5]

The pandas version is what one would write by hand: `groupby`, `shift`, `rolling`, and closed forms of slope and
autocorrelation from rolling sums, because `rolling.apply` calls Python for every row. The polars version says the same in
expressions, on one thread like the others; polars is no dependency of this project and is left out with a note
where it is not installed. Both are checked against `make_features` on every complete row before anything is timed.
The floor is the time to fill a fresh table of that size with zeros: no implementation can be faster. Rounds are
interleaved, so that a disturbance of the machine meets all alike, and the median counts.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import pandas as pd

from smartgrid_ai.features import FEATURE_NAMES, LAGS, WARM_UP, make_features
from smartgrid_ai.readings import Place

PLACE = Place("Europe/Berlin", "DE")
DAY, WEEK = 24, 168  # hours
SPREAD = WEEK * (WEEK**2 - 1) / 12  # sum of squared distances of 168 hours from their middle
TOLERANCE = 1e-9  # relative, for values above one absolute


def random_loads(
    meters: int,
    hours: int,
) -> pd.DataFrame:  # meter_id, timestamp, consumption [W]
    "A daily rhythm times noise, without gaps."
    random = np.random.default_rng(0)
    clock = pd.date_range("2011-01-01", periods=hours, freq="h", tz="UTC").as_unit("us")
    rhythm = 1.5 + np.sin(2 * np.pi * np.arange(hours) / DAY)
    parts = [
        pd.DataFrame(
            {
                "meter_id": f"meter-{number}",
                "timestamp": clock,
                "consumption": 100 * (1 + number) * rhythm * random.gamma(9, 1 / 9, hours),
            }
        )
        for number in range(meters)
    ]
    return pd.concat(parts, ignore_index=True)


def ours(readings: pd.DataFrame) -> np.ndarray:
    "The package, with its keys, flags and covariates left out of the comparison but not of the time."
    return make_features(readings, PLACE, weather="none")[list(FEATURE_NAMES)].to_numpy()


# The same in pandas


def pandas_features(readings: pd.DataFrame) -> np.ndarray:
    "The 31 columns, meter by meter through `groupby`."
    meter = readings["meter_id"]
    table = pandas_calendar(readings["timestamp"])
    load = readings["consumption"].groupby(meter, sort=False)
    lag = {k: load.shift(k) for k in (*LAGS, 2, 25, 169)}
    table |= pandas_windows(lag[1], meter)
    table |= pandas_steps(lag) | {f"lag_{k}": lag[k] for k in LAGS}
    table["prev_day_mean"] = pandas_previous_day(readings)
    table |= pandas_shape(lag, table, meter)
    return np.column_stack([np.asarray(table[name], dtype=float) for name in FEATURE_NAMES])


def pandas_calendar(timestamp: pd.Series) -> dict[str, pd.Series]:
    "Eight columns from the civil clock."
    local = timestamp.dt.tz_convert(PLACE.timezone).dt.tz_localize(None)
    years = list(range(local.min().year, local.max().year + 1))
    holidays = pd.to_datetime(sorted(PLACE.holiday_calendar(years)))
    return {
        "hour": local.dt.hour,
        "day_of_week": local.dt.day_of_week,
        "month": local.dt.month,
        "quarter": local.dt.quarter,
        "is_weekend": local.dt.day_of_week >= 5,
        "is_holiday": local.dt.normalize().isin(holidays),
        "season": local.dt.month % 12 // 3,
        "day_of_year": local.dt.day_of_year - 1,
    }


def pandas_windows(earlier: pd.Series, meter: pd.Series) -> dict[str, np.ndarray]:
    "Mean, deviation, smallest and largest of the last day and week."
    table = {}
    for hours in (DAY, WEEK):
        window = earlier.groupby(meter, sort=False).rolling(hours, min_periods=hours // 2)
        for name in ("mean", "std", "min", "max"):
            table[f"rolling_{name}_{hours}"] = getattr(window, name)().to_numpy()
    return table


def pandas_steps(lag: dict[int, pd.Series]) -> dict[str, pd.Series]:
    "Four differences."
    return {
        "diff_1": lag[1] - lag[2],
        "diff_24": lag[1] - lag[25],
        "diff_168": lag[1] - lag[169],
        "diff_1_prev_day": lag[24] - lag[25],
    }


def pandas_previous_day(readings: pd.DataFrame) -> np.ndarray:
    "Mean of the civil day before, looked up by meter and day."
    local = readings["timestamp"].dt.tz_convert(PLACE.timezone).dt.tz_localize(None)
    day = local.dt.normalize().rename("day")
    daily = readings["consumption"].groupby([readings["meter_id"], day], sort=False).mean()
    before = daily.groupby(level="meter_id", sort=False).shift(1)
    return before.reindex(pd.MultiIndex.from_arrays([readings["meter_id"], day])).to_numpy()


def pandas_shape(
    lag: dict[int, pd.Series], table: dict[str, np.ndarray], meter: pd.Series
) -> dict[str, np.ndarray]:
    "Trend, volatility, rate of change and cyclicity, from rolling sums."

    def rolled(values: pd.Series, hours: int) -> np.ndarray:
        return values.groupby(meter, sort=False).rolling(hours).sum().to_numpy()

    earlier, hour = lag[1], meter.groupby(meter, sort=False).cumcount()
    mean, deviation = table["rolling_mean_168"], table["rolling_std_168"]
    middle = hour.to_numpy() - (WEEK - 1) / 2
    slope = (rolled(earlier * hour, WEEK) - middle * rolled(earlier, WEEK)) / SPREAD
    pairs = WEEK - DAY
    products, late, early = (
        rolled(values, pairs) for values in (earlier * lag[25], earlier, lag[25])
    )
    covariance = products - mean * (late + early) + pairs * mean**2
    return {
        "trend": slope,
        "volatility": table["rolling_std_24"] / table["rolling_mean_24"],
        "rate_of_change": (table["diff_24"] / lag[25].abs()).clip(-10, 10),
        "cyclicity_index": covariance / (deviation**2 * (WEEK - 1)),
    }


# The same in polars


def polars_features(polars, readings: pd.DataFrame) -> np.ndarray:
    "The 31 columns as expressions over meters; `polars` is the module."
    frame = polars.from_pandas(readings).with_columns(*polars_calendar(polars))
    load = polars.col("consumption")
    frame = frame.with_columns(
        *(load.shift(k).over("meter_id").alias(f"lag_{k}") for k in (*LAGS, 2, 25, 169)),
        polars.int_range(polars.len()).over("meter_id").alias("position"),
    )
    daily = frame.group_by(["meter_id", "day"], maintain_order=True).agg(
        load.mean().alias("prev_day_mean")
    )
    daily = daily.with_columns(polars.col("prev_day_mean").shift(1).over("meter_id"))
    frame = frame.with_columns(*polars_windows(polars), *polars_steps(polars)).join(
        daily, on=["meter_id", "day"], how="left", maintain_order="left"
    )
    frame = frame.with_columns(*polars_shape(polars))
    return frame.select(polars.col(FEATURE_NAMES).cast(polars.Float64)).to_numpy()


def polars_calendar(polars) -> list:
    "Eight columns and the civil day."
    local = polars.col("timestamp").dt.convert_time_zone(PLACE.timezone)
    weekday, holidays = local.dt.weekday() - 1, sorted(PLACE.holiday_calendar([*range(2000, 2040)]))
    return [
        local.dt.hour().alias("hour"),
        weekday.alias("day_of_week"),
        local.dt.month().alias("month"),
        local.dt.quarter().alias("quarter"),
        (weekday >= 5).alias("is_weekend"),
        local.dt.date().is_in(holidays).alias("is_holiday"),
        (local.dt.month() % 12 // 3).alias("season"),
        (local.dt.ordinal_day() - 1).alias("day_of_year"),
        local.dt.date().alias("day"),
    ]


def polars_windows(polars) -> list:
    "Mean, deviation, smallest and largest of the last day and week."
    earlier = polars.col("lag_1")
    return [
        getattr(earlier, f"rolling_{name}")(hours, min_samples=hours // 2)
        .over("meter_id")
        .alias(f"rolling_{name}_{hours}")
        for hours in (DAY, WEEK)
        for name in ("mean", "std", "min", "max")
    ]


def polars_steps(polars) -> list:
    "Four differences."
    lag = {k: polars.col(f"lag_{k}") for k in (1, 2, 24, 25, 169)}
    return [
        (lag[1] - lag[2]).alias("diff_1"),
        (lag[1] - lag[25]).alias("diff_24"),
        (lag[1] - lag[169]).alias("diff_168"),
        (lag[24] - lag[25]).alias("diff_1_prev_day"),
    ]


def polars_shape(polars) -> list:
    "Trend, volatility, rate of change and cyclicity, from rolling sums."
    earlier, day_before, hour = (polars.col(name) for name in ("lag_1", "lag_25", "position"))
    mean, deviation = polars.col("rolling_mean_168"), polars.col("rolling_std_168")

    def rolled(values, hours: int):
        return values.rolling_sum(hours).over("meter_id")

    slope = rolled(earlier * hour, WEEK) - (hour - (WEEK - 1) / 2) * rolled(earlier, WEEK)
    pairs = WEEK - DAY
    late, early = rolled(earlier, pairs), rolled(day_before, pairs)
    covariance = rolled(earlier * day_before, pairs) - mean * (late + early) + pairs * mean**2
    return [
        (slope / SPREAD).alias("trend"),
        (polars.col("rolling_std_24") / polars.col("rolling_mean_24")).alias("volatility"),
        (polars.col("diff_24") / day_before.abs()).clip(-10, 10).alias("rate_of_change"),
        (covariance / (deviation**2 * (WEEK - 1))).alias("cyclicity_index"),
    ]


# Measuring


def floor(readings: pd.DataFrame) -> np.ndarray:
    "Fill a fresh table."
    return np.full((len(readings), len(FEATURE_NAMES)), 0.0)


def candidates() -> dict[str, Callable[[pd.DataFrame], np.ndarray]]:
    "What is compared, ours first."
    found = {"make_features": ours, "pandas": pandas_features}
    try:
        import polars
    except ImportError:
        print("polars is not installed and left out: pip install polars", file=sys.stderr)
    else:
        found["polars"] = lambda readings: polars_features(polars, readings)
    return found | {"floor": floor}


def worst_differences(
    readings: pd.DataFrame,
    mine: np.ndarray,  # (rows, 31)
    other: np.ndarray,  # (rows, 31)
) -> dict[str, float]:  # per feature, relative for values above one
    "How far two tables are apart on complete rows."
    late = readings.groupby("meter_id", sort=False).cumcount().to_numpy() >= WARM_UP
    complete = late & ~np.isnan(mine).any(axis=1)
    gap = np.abs(mine - other)[complete] / np.maximum(np.abs(mine[complete]), 1.0)
    return dict(zip(FEATURE_NAMES, gap.max(axis=0)))


def check(readings: pd.DataFrame, functions: dict[str, Callable]) -> None:
    "Stop unless every implementation says what ours says."
    mine = ours(readings)
    for name in functions.keys() - {"make_features", "floor"}:
        gaps = worst_differences(readings, mine, functions[name](readings))
        wrong = {feature: gap for feature, gap in gaps.items() if not gap <= TOLERANCE}
        if wrong:
            sys.exit(f"{name} differs from make_features: {wrong}")
        print(
            f"{name}: equal on complete rows, largest relative difference {max(gaps.values()):.1e}"
        )


def seconds(function: Callable, readings: pd.DataFrame) -> float:
    "Wall-clock time of one call."
    start = time.perf_counter()
    function(readings)
    return time.perf_counter() - start


def measure(
    readings: pd.DataFrame, functions: dict[str, Callable], rounds: int
) -> pd.Series:  # s, median per implementation
    "Interleaved rounds."
    taken = [
        {name: seconds(function, readings) for name, function in functions.items()}
        for _ in range(rounds)
    ]
    return pd.DataFrame(taken).median()


def main() -> int:
    "Check, measure, print."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--meters", type=int, default=10)
    parser.add_argument("--hours", type=int, default=41_505, help="per meter")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    readings, functions = random_loads(options.meters, options.hours), candidates()
    check(readings, functions)
    median = measure(readings, functions, options.rounds)
    print(
        f"{len(readings):,} rows x {len(FEATURE_NAMES)} features, median of {options.rounds} rounds"
    )
    for name, value in median.items():
        print(f"{name:<14} {1000 * value:8.0f} ms {value / median['make_features']:6.2f} x ours")
    return 0


if __name__ == "__main__":
    sys.exit(main())
