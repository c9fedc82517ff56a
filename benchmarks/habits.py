"""What two rules are worth that ask no validation part: habits that are corrected, and trust that follows recent errors.

    python benchmarks/habits.py [feeder] [cloudy_feeder] [vic_elec] [gefcom2014e] … [--horizon 24] [--seed 0]

Validation hours fit the mixture's corrections and its gate, and may know nothing of what comes. So a miss that lasts is corrected
whatever they say (`forecast.correction`), and the gate begins with weights inverse to the squared error of the last two weeks (`forecast.gate`). Each line is
the same fitted mixture, as it is and without one or both of the rules, beside LightGBM and the experts.

`feeder` is simulated: homes, shops and heating near Berlin, and solar panels whose capacity doubles in the eighteen months from January 2023 on;
the temperature is given as observed, and of the `cloudy_feeder`, which is the same one, the cloud cover, too. The dates are those that `smartgrid backtest` takes by default, so the mixture has seen one
spring, is validated in a winter that says little of the next one, and is tested from January to June. Of the public sets it is the year *before*
the test part that is forecast, with half a year of validation before it. The error is the mean absolute one in percent of the mean absolute load,
smaller is better; *noon* is the mean of load less forecast from 10 to 14 o'clock in April to June, in percent of the same.
"""

import argparse
import sys
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
from correction import year_before
from forecasts import SETTINGS, parser_of_sets, present

from smartgrid_ai.commands.options import Progress
from smartgrid_ai.evaluate.backtest import Fitted, fit_horizon
from smartgrid_ai.forecast.experts import EXPERTS
from smartgrid_ai.readings import Place
from smartgrid_ai.windows import chronological_split

PLACE = Place("Europe/Berlin", "DE")  # of the feeder
MONTHS, GROWS = 18, 2.0
MODELS = ("seasonal_naive", "lightgbm", *EXPERTS, "moe")
FEEDERS = ("feeder", "cloudy_feeder")
PEAK = 6.0  # MW, of the panels at the beginning, under a clear sky in midsummer
TRAINING = {"epochs": 12, "batches": None, "trees": 60, "tuned": {}, "weather_error": 0.0}


def feeder(name: str, seed: int) -> pd.DataFrame:
    "Canonical hourly readings of one of the feeders [W], negative where the panels give more than is used."
    random = np.random.default_rng(seed)
    time = pd.date_range("2023-01-01", periods=MONTHS * 30 * 24, freq="h", tz="UTC")
    clock = time.tz_convert(PLACE.timezone)
    hour, season = clock.hour.to_numpy(), 2 * np.pi * clock.day_of_year.to_numpy() / 365
    temperature = 9 + 10 * np.sin(season - 1.9) + 4 * np.sin(np.pi * (hour - 9) / 12)
    temperature = temperature + 12 * _lasting(random, len(time), 30)
    cloud = np.clip(0.5 + 1.6 * _lasting(random, len(time), 10), 0, 1)
    panels = PEAK * np.linspace(1, GROWS, len(time)) * _sun(hour, season) * (1 - 0.75 * cloud)
    used = _used(hour, clock.day_of_week.to_numpy(), temperature)
    load = used * random.normal(1, 0.02, len(time)) - panels
    weather = {"temperature": temperature}
    if name == "cloudy_feeder":
        weather["cloud_cover"] = 100 * cloud
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


def without(fitted: Fitted, habits: bool, trust: bool) -> Fitted:
    "The mixture alone, without the correction of habits, without the trust in recent errors, or without both."
    family = deepcopy(fitted.families["moe"])
    if habits:
        family.family.mixture.correction[..., -1] = 0
    if trust:
        family.family.mixture.gate.recent.data.zero_()
    return replace(fitted, families={"moe": family}, naive=[], models=("moe",))


def errors(forecasts: pd.DataFrame, place: Place) -> pd.DataFrame:
    "Error and noon bias of every model."
    told = forecasts.dropna(subset="actual")
    clock = told["timestamp"].dt.tz_convert(place.timezone)
    noon = clock.dt.hour.between(10, 13) & clock.dt.month.between(4, 6)
    miss, size = 100 * (told["actual"] - told["prediction"]), told["actual"].abs().mean()
    mean = lambda values: values.groupby(told["model"], sort=False).mean() / size  # noqa: E731
    return pd.DataFrame({"error": mean(miss.abs()), "noon": mean(miss.where(noon))})


VARIANTS = {
    "moe, no habits": (True, False),
    "moe, no trust": (False, True),
    "moe, neither": (True, True),
}


def measure(name: str, options: argparse.Namespace) -> None:
    "Fit once, forecast four times, print."
    if name in FEEDERS:
        readings, place, weather = feeder(name, options.seed), PLACE, "observed"
        split = chronological_split(readings, place)
    else:
        readings, split, setting = year_before(name, options.data)
        place, weather = setting.place, setting.weather
    settings = TRAINING | {"place": place, "weather": weather, "seed": options.seed}
    progress = Progress()
    fitted, frame = fit_horizon(
        readings, split, MODELS, options.horizon, settings, progress=progress
    )
    progress.close()
    parts = [errors(fitted.forecast(frame), place)]
    for said, (habits, trust) in VARIANTS.items():
        alone = errors(without(fitted, habits, trust).forecast(frame), place)
        parts.append(alone.rename(index={"moe": said}))
    table = pd.concat(parts)
    for said, row in table.iterrows():
        ratio = row["error"] / table["error"]["lightgbm"]
        print(f"{name:<18}{said:<18}{row['error']:>10.3f}{ratio:>12.3f}{row['noon']:>10.2f}")


def chosen(options: argparse.Namespace) -> list[str]:
    "The sets asked for, without public ones that are not there."
    there = set(present([name for name in options.sets if name not in FEEDERS], options.data))
    return [name for name in options.sets if name in there | set(FEEDERS)]


def parse() -> argparse.Namespace:
    "Options."
    parser = parser_of_sets(__doc__, (*FEEDERS, *SETTINGS), ["feeder"])
    parser.add_argument("--horizon", type=int, default=24, choices=(1, 24))
    return parser.parse_args()


def main() -> int:
    "All sets, one after the other."
    options = parse()
    print(f"{'set':<18}{'model':<18}{'error, %':>10}{'/ LightGBM':>12}{'noon, %':>10}")
    for name in chosen(options):
        measure(name, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
