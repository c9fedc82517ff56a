"""One hour ahead on public load data: every model of this package, and LightGBM with the same knowledge.

    python benchmarks/forecasts.py [SET ...] [--seeds 0 1] [--data FOLDER] [--out FILE.md] [-- OPTIONS]
    python benchmarks/forecasts.py vic_elec -- --epochs 1

For every set and seed `smartgrid backtest` runs as a person would run it, LightGBM forecasts the same hours, and the
scorer that lies beside the data (`../score/score_load.py`) prints the errors of both; this script only arranges
them. What stands behind `--` goes to `smartgrid backtest`. Sets, calendars and dates are those of the benchmark
protocol: train, then validation, then test, nothing chosen on the test part; observed weather at the target hour
where the set has weather (a perfect forecast), none elsewhere. The error is MAPE for system loads and WAPE for
meters, in percent.

LightGBM gets what the networks read of a row: the 31 features as ratios to the row's own size, that size, the
calendar on circles, the covariates, the naive forecast, last week's step into the hour and, for several meters, the
meter. Its target is the residual over the naive forecast (`smartgrid_ai.scaling.anchor`) in units of that size, with
the size as weight, so that its loss is in watts. (Ratios, circles and last week's step were kept because they lower
its validation error on vic_elec from 0.89 to 0.77 % MAPE: a weak peer proves nothing.) Squared error for one system,
absolute error for meters. Learning rate and leaves are those of `GRID` with the best validation error, trees are
added until the validation error has not fallen for 100 trees. It is fitted on the train part only, as the networks are.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from smartgrid_ai.data.sources import read_readings
from smartgrid_ai.errors import SmartgridError
from smartgrid_ai.features import make_features
from smartgrid_ai.provenance import git_revision, package_versions
from smartgrid_ai.readings import Place, watts_per
from smartgrid_ai.scaling import (
    COLUMN,
    anchor,
    calendar_harmonics,
    covariate_matrix,
    feature_matrix,
    known_covariates,
    ratios,
    row_scale,
)
from smartgrid_ai.windows import Split, chronological_split

ROOT = Path(__file__).resolve().parents[1]
EXPERTS = ("gru", "cnn_lstm", "transformer", "attention")
LIGHTGBM = "lightgbm_anchored"
GRID = {"learning_rate": (0.03, 0.08), "num_leaves": (31, 127)}
TREES, PATIENCE = 3000, 100  # at most, and without a better validation error
FIXED = {"min_child_samples": 20, "subsample": 0.8, "subsample_freq": 1, "colsample_bytree": 0.8}
HEADER = (
    "set", "error", "seed", "persistence", "seasonal naive", "baseline", "LightGBM anchored",
    "best expert", "moe", "moe / LightGBM",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    "How a set is read, cut and judged."

    dates: tuple[str, ...]  # first day of train, validation and test; last day of test
    place: Place
    unit: str = "MW"
    weather: str = "observed"  # or "none"
    error: str = "MAPE"

    @property
    def split(self) -> dict[str, str]:
        "The dates by the names that `chronological_split` and the command line use."
        return dict(zip(("train_start", "val_start", "test_start", "test_end"), self.dates))


US = Place("UTC", "US")  # these files' own clock is read as UTC
ENGLAND = Place("Europe/London", "GB", "ENG")
SETTINGS = {
    "vic_elec": Setting(
        ("2012-01-01", "2013-10-01", "2014-01-01", "2014-12-31"),
        Place("Australia/Melbourne", "AU", "VIC"),
    ),
    "gefcom2014e": Setting(("2010-01-01", "2013-07-01", "2014-01-01", "2014-12-31"), US),
    "isone_2003_2006": Setting(("2003-04-01", "2005-10-01", "2006-01-01", "2006-12-31"), US),
    "fr_load": Setting(
        ("2011-01-01", "2016-07-01", "2017-01-01", "2017-12-31"),
        Place("Europe/Paris", "FR"),
        weather="none",
    ),
    "pjm_zones": Setting(
        ("2013-01-01", "2017-04-01", "2017-08-03", "2018-08-02"), US, weather="none"
    ),
    "cambridge": Setting(
        ("2013-01-01", "2014-10-01", "2015-01-01", "2015-12-31"), ENGLAND, "kWh", error="WAPE"
    ),
    "london_lcl": Setting(
        ("2013-01-01", "2013-09-15", "2013-10-20", "2013-12-31"), ENGLAND, "kWh", "none", "WAPE"
    ),
}


# This package


def backtest_command(
    setting: Setting, data: Path, forecasts: Path, seed: int, extra: list[str]
) -> list[str]:
    "The command line that a person would type."
    place = {
        "--timezone": setting.place.timezone,
        "--country": setting.place.country,
        "--subdivision": setting.place.subdivision,
    }
    options = {f"--{name.replace('_', '-')}": date for name, date in setting.split.items()}
    options |= {name: value for name, value in place.items() if value}
    options |= {"--unit": setting.unit, "--weather": setting.weather, "--seed": str(seed)}
    words = [word for pair in options.items() for word in pair]
    program = Path(sys.executable).with_name("smartgrid")
    return [str(program), "backtest", str(data), *words, "--forecasts", str(forecasts), *extra]


def run_backtest(command: list[str]) -> pd.DataFrame:
    "Forecasts of all models in the unit of the file; ends the script when the command failed."
    print("$ " + " ".join(command), file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(f"smartgrid backtest ended with {done.returncode}: see above")
    return pd.read_parquet(command[command.index("--forecasts") + 1])


# The peer


@dataclass(frozen=True)
class Rows:
    "What LightGBM learns from, hour by hour."

    keys: pd.DataFrame  # meter_id, timestamp
    inputs: pd.DataFrame  # see `peer_inputs`, and the meter where there are several
    naive: np.ndarray  # (rows,) W
    size: np.ndarray  # (rows,) W
    target: np.ndarray  # (rows,) residual in sizes, NaN where the load is missing or in the warm-up


def peer_rows(table: pd.DataFrame) -> Rows:  # from a feature table
    "Inputs and target of every row."
    features = feature_matrix(table)
    naive, size = anchor(features), row_scale(features)
    inputs = peer_inputs(table, features, naive, size)
    if table["meter_id"].nunique() > 1:
        inputs["meter"] = table["meter_id"].astype("category").array
    target = np.where(table["warm_up"], np.nan, (table["target"].to_numpy() - naive) / size)
    return Rows(table[["meter_id", "timestamp"]], inputs, naive, size, target)


def peer_inputs(
    table: pd.DataFrame,  # feature table
    features: np.ndarray,  # (rows, 31)
    naive: np.ndarray,  # (rows,) W
    size: np.ndarray,  # (rows,) W
) -> pd.DataFrame:
    "What LightGBM sees of each row, NaN where unknown."
    lag_1, lag_168, week = (features[:, COLUMN[name]] for name in ("lag_1", "lag_168", "diff_168"))
    step = (lag_168 - lag_1 + week) / size
    parts = [ratios(features, size), calendar_harmonics(features), naive / size - 1, step, size]
    values = np.column_stack([*parts, covariate_matrix(table, known_covariates(table))])
    return pd.DataFrame(values.astype(np.float32)).rename(columns=str)


def fit_peer(
    rows: Rows,
    train: np.ndarray,  # (rows,) bool
    validation: np.ndarray,  # (rows,) bool
    objective: str,  # "l1" or "l2"
    settings: dict,  # one point of the grid, and the seed
):  # a fitted `LGBMRegressor`
    "Add trees until the validation error stops falling."
    import lightgbm

    weight = rows.size if objective == "l1" else rows.size**2
    model = lightgbm.LGBMRegressor(
        objective=objective, n_estimators=TREES, n_jobs=threads(), verbose=-1, **FIXED, **settings
    )
    return model.fit(
        rows.inputs[train],
        rows.target[train],
        sample_weight=weight[train] / weight[train].mean(),
        eval_X=(rows.inputs[validation],),
        eval_y=(rows.target[validation],),
        eval_sample_weight=[weight[validation] / weight[validation].mean()],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )


def threads() -> int:
    "As many as every other library here is told to use."
    return int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


def tuned_peer(rows: Rows, split: Split, objective: str, seed: int):  # a fitted `LGBMRegressor`
    "The point of the grid with the smallest validation error."
    known, stamps = np.isfinite(rows.target), rows.keys["timestamp"]
    train, validation = (split.part(stamps, part) & known for part in ("train", "validation"))
    best, lowest = None, np.inf
    for values in product(*GRID.values()):
        settings = dict(zip(GRID, values)) | {"random_state": seed}
        model = fit_peer(rows, train, validation, objective, settings)
        error = model.best_score_["valid_0"][objective]
        print(
            f"lightgbm {settings}: {model.best_iteration_} trees, validation {objective} {error:.6g}",
            file=sys.stderr,
            flush=True,
        )
        if error < lowest:
            best, lowest = model, error
    return best


def peer_forecasts(setting: Setting, data: Path, seed: int) -> pd.DataFrame:
    "LightGBM's forecasts of the test hours, in the unit of the file."
    readings = read_readings(data, unit=setting.unit, timezone=setting.place.timezone)
    split = chronological_split(readings, setting.place, **setting.split)
    lead = split.train_start - pd.Timedelta(days=60)
    readings = readings[readings["timestamp"] >= lead].reset_index(drop=True)
    rows = peer_rows(make_features(readings, setting.place, setting.weather))
    model = tuned_peer(rows, split, "l2" if setting.error == "MAPE" else "l1", seed)
    test = split.part(rows.keys["timestamp"], "test")
    watts = rows.naive[test] + rows.size[test] * model.predict(rows.inputs[test])
    prediction = watts / watts_per(setting.unit)
    return rows.keys[test].assign(model=LIGHTGBM, horizon=1, prediction=prediction)


# Scoring


def scores(
    name: str,
    tables: list[pd.DataFrame],  # forecasts, each with its own models
    data: Path,  # folder of the sets
    folder: Path,  # for what the scorer reads and writes
) -> pd.DataFrame:  # model -> MAPE, WAPE, ...
    "What the scorer beside the data says."
    forecasts, result = folder / "all.parquet", folder / "scores.json"
    columns = ["model", "meter_id", "timestamp", "horizon", "prediction"]
    pd.concat([table[columns] for table in tables]).to_parquet(forecasts, index=False)
    command = [sys.executable, scorer_of(data), name, forecasts, "--data", data, "--json", result]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return pd.DataFrame(json.loads(result.read_text())).set_index("model")


def scorer_of(data: Path) -> Path:
    "Where the scorer of a folder `shared/data/load` lies."
    return data.resolve().parents[1] / "score" / "score_load.py"


def row_of(name: str, seed: int, error: pd.Series) -> list[str]:
    "One line of the table from the error of each model."

    def shown(model: str) -> str:
        return f"{error[model]:.3f}" if model in error else "–"

    experts = error[error.index.isin(EXPERTS)]
    best = f"{experts.min():.3f} ({experts.idxmin()})" if len(experts) else "–"
    ratio = f"{error['moe'] / error[LIGHTGBM]:.3f}" if "moe" in error else "–"
    models = [shown(model) for model in ("persistence", "seasonal_naive", "baseline", LIGHTGBM)]
    return [name, SETTINGS[name].error, str(seed), *models, best, shown("moe"), ratio]


def measure(name: str, data: Path, seed: int, extra: list[str]) -> list[str]:
    "Run both sides on one set, score them together."
    setting, path = SETTINGS[name], data / f"{name}.parquet"
    with TemporaryDirectory() as folder:
        forecasts = Path(folder) / "ours.parquet"
        mine = run_backtest(backtest_command(setting, path, forecasts, seed, extra))
        peer = peer_forecasts(setting, path, seed)
        return row_of(name, seed, scores(name, [mine, peer], data, Path(folder))[setting.error])


def present(names: list[str], data: Path) -> Iterator[str]:
    "The sets that are there; the others are named and left out."
    for name in names:
        if (data / f"{name}.parquet").is_file():
            yield name
        else:
            print(f"{name}: left out, {data / name}.parquet is not there", file=sys.stderr)


def markdown(rows: list[list[str]]) -> str:
    "The table, and what it was made with."
    lines = [HEADER, ["---"] * len(HEADER), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    used = package_versions() | {"lightgbm": version("lightgbm")}
    versions = ", ".join(f"{name} {number}" for name, number in used.items())
    made = f"`{' '.join(['python benchmarks/forecasts.py', *sys.argv[1:]])}`"
    return f"{table}\n\nMade by {made} at {git_revision()}, with {versions}.\n"


def parse() -> tuple[argparse.Namespace, list[str]]:
    "Own options, and those behind `--`."
    shared = Path(os.environ.get("SMARTGRID_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sets", nargs="*", metavar="SET", help=f"of {', '.join(SETTINGS)}; default: all"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data", type=Path, default=shared / "data" / "load", metavar="FOLDER")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    options, extra = parser.parse_args(words[:end]), words[end + 1 :]
    unknown = [name for name in options.sets if name not in SETTINGS]
    if unknown:
        parser.error(f"no set {unknown[0]!r}: use any of {', '.join(SETTINGS)}")
    return options, extra


def main() -> int:
    "All sets and seeds, one line each; the table grows in the file while the script runs."
    options, extra = parse()
    if not scorer_of(options.data).is_file():
        print(
            f"left out: no scorer {scorer_of(options.data)}; name its folder with SMARTGRID_SHARED",
            file=sys.stderr,
        )
        return 0
    if find_spec("lightgbm") is None:
        sys.exit("LightGBM is not installed: pip install -e '.[dev]'")
    rows = []
    for name in present(options.sets or list(SETTINGS), options.data):
        for seed in options.seeds:
            try:
                rows.append(measure(name, options.data, seed, extra))
            except SmartgridError as error:
                sys.exit(f"{name}: {error}")
            if options.out:
                options.out.write_text(markdown(rows))
    print(markdown(rows), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
