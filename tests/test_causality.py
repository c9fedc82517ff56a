"""Whatever happens after a forecast was issued, the forecast stays as it was: for every model and every horizon."""

import numpy as np
import pandas as pd
import pytest

from smartgrid_ai.data.simulate import SIMULATED_PLACE, simulate
from smartgrid_ai.forecast.forecaster import Forecaster
from smartgrid_ai.forecast.wanted import next_days, next_hours
from smartgrid_ai.windows import chronological_split

HISTORY = 24 * 100  # hours of each meter
INSTANTS = 4  # at which the future is poisoned, for each family and horizon
CASES = {1: 0, 24: 0, 168: 0}


@pytest.fixture(scope="module")
def readings() -> pd.DataFrame:
    "Two unlike meters of the simulator, with a gap."
    every = simulate("small", seed=3)
    some = every[every["meter_id"].isin(every["meter_id"].unique()[:2])]
    some = some.groupby("meter_id").head(HISTORY).reset_index(drop=True)
    some.loc[1000:1030, "consumption"] = np.nan
    return some


@pytest.fixture(scope="module")
def split(readings):
    return chronological_split(readings, SIMULATED_PLACE)


@pytest.fixture(scope="module", params=[(f, h) for f in ("baseline", "moe") for h in (1, 24, 168)])
def forecaster(request, readings, split, few_rows) -> Forecaster:
    "Every family and horizon, trained just enough to have an opinion."
    family, horizon = request.param
    small = {"epochs": 1, "batches": 2, "trees": 3}
    return Forecaster(family, SIMULATED_PLACE, horizon=horizon, **small).fit(readings, split)


def poisoned(readings: pd.DataFrame, instant: pd.Timestamp, generator) -> pd.DataFrame:
    "Loads from `instant` on are lost, huge, negative or shuffled."
    after = (readings["timestamp"] >= instant).to_numpy()
    load = readings["consumption"].to_numpy().copy()
    kind = generator.integers(4)
    poison = [np.nan, 1e9, -load[after], generator.permutation(load[after])][kind]
    load[after] = poison
    return readings.assign(consumption=load)


def issued_until(frame, instant: pd.Timestamp, horizon: int):
    "Forecasts of both meters issued in the two days up to an instant, the last of them exactly there."
    stamps = frame.hours.timestamp
    inside = (stamps <= instant) & (stamps > instant - pd.Timedelta(hours=48))
    rows = np.flatnonzero(inside & (frame.hours.left >= horizon))
    return next_hours(rows) if horizon == 1 else next_days(rows[::12], horizon // 24)


def test_the_future_changes_no_forecast(forecaster, readings, split):
    generator = np.random.default_rng(forecaster.horizon)
    stamps = pd.DatetimeIndex(readings["timestamp"].drop_duplicates().sort_values())
    first, last = stamps.searchsorted(split.val_start), len(stamps) - 170
    plain = forecaster.frame(readings)
    for instant in stamps[generator.integers(first, last, INSTANTS)]:
        wanted = issued_until(plain, instant, forecaster.horizon)
        spoilt = forecaster.frame(poisoned(readings, instant, generator))
        before, after = (forecaster.forecast(f, wanted, live=True) for f in (plain, spoilt))
        for model in forecaster.models:
            pd.testing.assert_frame_equal(before[model], after[model], check_exact=True)
            CASES[forecaster.horizon] += len(before[model])


def test_enough_cases_were_seen():
    "Forecasts compared above, over all models and horizons."
    if not all(CASES.values()):
        pytest.skip("runs after the test above")
    assert sum(CASES.values()) >= 10_000 and CASES[1] >= 2_000
