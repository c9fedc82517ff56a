"""What would LightGBM gain if it corrected itself by its latest misses, as the experts of the mixture do?

    python benchmarks/correction.py [gefcom2014e] [--horizon 1] [--seed 0]

The rival of `benchmarks/forecasts.py` is what practitioners would send, and does not correct itself. Here it takes the place of the
mixture's tree expert, and so is corrected by the rule of `forecast.correction` (four coefficients for each day ahead, fitted on half of
the validation weeks, kept only if the other half confirms them; days ahead lasting misses of the same hour, too). The year *before* the test part of a set is forecast, with half a
year of validation before it; the test year is not touched. Errors are MAPE and WAPE in percent, smaller is better.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
from forecasts import SETTINGS, Setting, parser_of_sets, present

from smartgrid_ai.data.sources import read_readings
from smartgrid_ai.evaluate.backtest import backtest
from smartgrid_ai.forecast import training
from smartgrid_ai.forecast.lightgbm import LightGBMPeer
from smartgrid_ai.windows import Split, chronological_split

NAMES = {"lightgbm": "as it is", "tree": "corrected"}


class CorrectedPeer(LightGBMPeer):
    "LightGBM in the place of the tree expert."

    def fit(self, rows, spread_rows, seed: int = 0, trees: int = 0) -> "CorrectedPeer":
        "As the rival is fitted: how many trees are enough, it finds out itself."
        return super().fit(rows, spread_rows, seed=seed)


def year_before(name: str, folder: Path) -> tuple[pd.DataFrame, Split, Setting]:
    "Readings of a set, a split that ends where its test part begins, and how it is read."
    setting, year = SETTINGS[name], pd.DateOffset(years=1)
    place, test = setting.place, pd.Timestamp(setting.dates[2])
    readings = read_readings(folder / f"{name}.parquet", unit=setting.unit, timezone=place.timezone)
    dates = {
        "val_start": test - year - pd.DateOffset(months=6),
        "test_start": test - year,
        "test_end": test - pd.Timedelta(days=1),
    }
    told = {key: f"{day:%Y-%m-%d}" for key, day in dates.items()}
    return readings, chronological_split(readings, place, **told), setting


def measure(name: str, options: argparse.Namespace) -> None:
    "Both, on the year before the test part."
    readings, split, setting = year_before(name, options.data)
    settings = {"weather": setting.weather, "horizon": options.horizon, "seed": options.seed}
    result = backtest(readings, split, setting.place, tuple(NAMES), **settings)
    table = result.metrics.set_index("model")[["mape", "wape"]]
    for model, said in NAMES.items():
        print(f"{name:<18}{options.horizon:>4} h  {said:<10}{table.loc[model].round(3).to_dict()}")
    print(f"{'':<24}ratio     {(table.loc['tree'] / table.loc['lightgbm']).round(3).to_dict()}")


def parse() -> argparse.Namespace:
    "Options."
    parser = parser_of_sets(__doc__, SETTINGS, ["gefcom2014e"])
    parser.add_argument("--horizon", type=int, default=1, choices=(1, 24))
    return parser.parse_args()


def main() -> int:
    "All sets, one after the other."
    options = parse()
    training.TreeExpert = CorrectedPeer
    for name in present(options.sets, options.data):
        measure(name, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
