"""A load that outgrows its training: a feeder whose solar generation doubles, a day ahead, with and without the correction of habits.

    python benchmarks/growing.py [--horizon 24] [--seed 0] [--grows 2.0] [--months 18]

A feeder near Berlin is simulated: homes and shops, heating, and panels whose capacity grows in a straight line from January 2023
on. Temperature and cloud cover are given as observed. The dates are those that `smartgrid backtest` takes by default, so the mixture has seen one spring,
is validated in a winter that says little of the next one, and is tested from January to June. *Without habits* is the same fitted
mixture whose experts are corrected by their fitted coefficients alone (see `forecast.correction`). The error is the mean absolute one in
percent of the mean absolute net load, smaller is better; *noon* is the mean of load less forecast from 10 to 14 o'clock in April to June.
"""

import argparse
import sys
from dataclasses import replace

import numpy as np
import pandas as pd

from smartgrid_ai.evaluate.backtest import Fitted, fit_horizon
from smartgrid_ai.forecast.moe import EXPERTS
from smartgrid_ai.readings import Place
from smartgrid_ai.windows import chronological_split

PLACE = Place("Europe/Berlin", "DE")
MODELS = ("seasonal_naive", "lightgbm", *EXPERTS, "moe")
PEAK = 6.0  # MW, of the panels at the beginning, under a clear sky in midsummer
SETTINGS = {"weather": "observed", "epochs": 12, "batches": None, "trees": 60, "tuned": {}}


def feeder(months: int, grows: float, seed: int) -> pd.DataFrame:
    "Canonical hourly readings of one feeder [W], negative where the panels give more than is used."
    random = np.random.default_rng(seed)
    time = pd.date_range("2023-01-01", periods=round(months * 30 * 24), freq="h", tz="UTC")
    clock = time.tz_convert(PLACE.timezone)
    hour, season = clock.hour.to_numpy(), 2 * np.pi * clock.dayofyear.to_numpy() / 365
    temperature = 9 + 10 * np.sin(season - 1.9) + 4 * np.sin(np.pi * (hour - 9) / 12)
    temperature = temperature + 12 * _lasting(random, len(time), 30)
    cloud = np.clip(0.5 + 1.6 * _lasting(random, len(time), 10), 0, 1)
    panels = PEAK * np.linspace(1, grows, len(time)) * _sun(hour, season) * (1 - 0.75 * cloud)
    used = _used(hour, clock.dayofweek.to_numpy(), temperature)
    load = used * random.normal(1, 0.02, len(time)) - panels
    weather = {"temperature": temperature, "cloud_cover": 100 * cloud}
    table = {"meter_id": "feeder", "timestamp": time.as_unit("us"), "consumption": 1e6 * load}
    return pd.DataFrame(table | weather)


def _lasting(random: np.random.Generator, hours: int, half_life: float) -> np.ndarray:
    "Noise that forgets half of itself in so many hours."
    noise = pd.Series(random.standard_normal(hours))
    return noise.ewm(halflife=half_life).mean().to_numpy()


def _sun(hour: np.ndarray, season: np.ndarray) -> np.ndarray:
    "Share of the panels' peak under a clear sky."
    height = np.maximum(0, np.sin(np.pi * (hour - 6) / 12))
    return height * (0.675 + 0.325 * np.sin(season - 1.38))


def _used(hour: np.ndarray, weekday: np.ndarray, temperature: np.ndarray) -> np.ndarray:
    "What homes, shops and heating take, MW."
    peaks = 1.2 * np.exp(-(((hour - 19) / 3) ** 2)) + 0.7 * np.exp(-(((hour - 8) / 2) ** 2))
    return 3 + peaks - 0.5 * (weekday >= 5) + 0.09 * np.maximum(0, 15 - temperature)


def without_habits(fitted: Fitted) -> Fitted:
    "The same, corrected by the fitted coefficients alone."
    mixture = fitted.families["moe"]
    mixture.family.mixture.correction[..., -1] = 0
    return replace(fitted, families={"moe": mixture}, naive=[], models=("moe",))


def rows(forecasts: pd.DataFrame) -> pd.DataFrame:
    "Error and noon bias of every model."
    told = forecasts.dropna(subset="actual")
    clock = told["timestamp"].dt.tz_convert(PLACE.timezone)
    noon = clock.dt.hour.between(10, 13) & clock.dt.month.between(4, 6)
    miss = (told["actual"] - told["prediction"]).groupby(told["model"], sort=False)
    size = told["actual"].abs().groupby(told["model"], sort=False).sum()
    late = (told["actual"] - told["prediction"])[noon].groupby(told["model"][noon]).mean()
    return pd.DataFrame({"error": 100 * miss.apply(lambda m: m.abs().sum()) / size, "noon": late})


def parse() -> argparse.Namespace:
    "Options."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--horizon", type=int, default=24, choices=(1, 24))
    parser.add_argument("--seed", type=int, default=0, help="of the feeder and of the models")
    parser.add_argument("--grows", type=float, default=2.0, help="times the panels of the start")
    parser.add_argument("--months", type=int, default=18)
    return parser.parse_args()


def main() -> int:
    "Fit once, forecast twice, print."
    options = parse()
    readings = feeder(options.months, options.grows, options.seed)
    split = chronological_split(readings, PLACE)
    settings = SETTINGS | {"place": PLACE, "seed": options.seed, "weather_error": 0.0}
    fitted, frame = fit_horizon(readings, split, MODELS, options.horizon, settings)
    table = rows(fitted.forecast(frame))
    bare = rows(without_habits(fitted).forecast(frame)).rename(index={"moe": "moe, no habits"})
    print(f"{'model':<18}{'error, %':>10}{'/ LightGBM':>12}{'noon, MW':>10}")
    for name, row in pd.concat([table, bare]).iterrows():
        ratio = row["error"] / table["error"]["lightgbm"]
        print(f"{name:<18}{row['error']:>10.2f}{ratio:>12.3f}{row['noon'] / 1e6:>10.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
