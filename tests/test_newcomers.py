"""Intervals of meters that nobody has seen: calibrated apart, on meters that pretend to be new."""

import json
from copy import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loads import readings

from smartgrid_ai.forecast.forecaster import CONFIG, Forecaster, load_forecaster
from smartgrid_ai.forecast.newcomers import AGES, LONGEST, age_of, newcomer_group, pretenders
from smartgrid_ai.forecast.wanted import Wanted, next_days, next_hours
from smartgrid_ai.hours import make_hours
from smartgrid_ai.readings import Place
from smartgrid_ai.windows import chronological_split

PLACE = Place("Europe/Berlin", "DE", "BE")
QUICK = {"epochs": 1, "batches": 20, "trees": 3, "experts": ("dense", "tree")}
HOURS = 2000


def characters(meters: int) -> pd.DataFrame:
    "Meters whose days are unlike: a stranger's day is not known from the others."
    parts = []
    for number in range(meters):
        part = readings(HOURS, seed=number).assign(meter_id=f"meter-{number:02d}")
        hour = np.arange(HOURS) % 24
        part["consumption"] *= 1 + 0.6 * np.sin(2 * np.pi * (hour - 5 * number) / 24)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def load() -> pd.DataFrame:
    return characters(12)


@pytest.fixture(scope="module", params=[1, 24])
def fitted(request, load) -> Forecaster:
    "It knows all but the last two meters."
    known = load[load["meter_id"] < "meter-10"].reset_index(drop=True)
    split = chronological_split(known, PLACE)
    return Forecaster("moe", PLACE, horizon=request.param, **QUICK).fit(known, split)


def strangers(load: pd.DataFrame, hours: int, horizon: int) -> pd.DataFrame:
    "The last two meters, cut into many that have been there for so many hours when the forecast begins."
    parts = []
    for name, part in load[load["meter_id"] >= "meter-10"].groupby("meter_id"):
        for number, end in enumerate(range(HOURS // 2, HOURS - horizon, 37)):
            new = part.iloc[end - hours : end + horizon].assign(meter_id=f"{name} {number}")
            new.iloc[hours:, new.columns.get_loc("consumption")] = np.nan
            parts.append(new.assign(truth=part["consumption"].iloc[end - hours : end + horizon]))
    return pd.concat(parts, ignore_index=True)


def held(forecaster: Forecaster, new: pd.DataFrame) -> float:
    "Share of the strangers' hours within the 80 % interval."
    levels = dict.fromkeys(new["meter_id"].unique(), 500.0)
    said = forecaster.predict(new.drop(columns="truth"), levels=levels)
    said = said.merge(new[["meter_id", "timestamp", "truth"]], on=["meter_id", "timestamp"])
    return float(said["truth"].between(said["q0.1"], said["q0.9"]).mean())


def like_everyone(forecaster: Forecaster) -> Forecaster:
    other = copy(forecaster)
    other.intervals = replace(other.intervals, newcomers=0)
    return other


@pytest.mark.parametrize("hours", [0, 20, 72, 200])
def test_intervals_of_strangers_hold_what_they_promise(load, fitted, hours):
    share = held(fitted, strangers(load, hours, fitted.horizon))
    assert 0.65 < share < 0.97


def test_judged_like_everyone_a_meter_without_history_would_be_promised_too_much(load, fitted):
    new = strangers(load, 0, fitted.horizon)
    assert held(like_everyone(fitted), new) < held(fitted, new) - 0.2


def test_meters_that_were_learnt_from_are_not_touched(load, fitted):
    known = load[load["meter_id"] < "meter-10"].reset_index(drop=True)
    ours, plain = fitted.predict(known), like_everyone(fitted).predict(known)
    pd.testing.assert_frame_equal(ours, plain)
    assert fitted.intervals.newcomers == 4  # three thirds of ten meters, then the newcomers


def test_saved_and_loaded_strangers_are_judged_the_same(load, fitted, tmp_path):
    new = strangers(load, 20, fitted.horizon).drop(columns="truth")
    fitted.save(tmp_path)
    pd.testing.assert_frame_equal(load_forecaster(tmp_path).predict(new), fitted.predict(new))


def test_a_bundle_from_before_judges_strangers_like_everyone(load, fitted, tmp_path):
    new = strangers(load, 20, fitted.horizon).drop(columns="truth")
    fitted.save(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    del config["newcomers"]
    (tmp_path / CONFIG).write_text(json.dumps(config))
    expected = like_everyone(fitted).predict(new)
    pd.testing.assert_frame_equal(load_forecaster(tmp_path).predict(new), expected)


def test_published_live_strangers_begin_with_their_own_intervals(load, fitted):
    new = strangers(load, 20, fitted.horizon)
    frame = fitted.frame(new.drop(columns="truth"))
    rows = frame.hours.bounds[:-1] + 20
    wanted = next_hours(rows) if fitted.horizon == 1 else next_days(rows)
    live = fitted.forecast(frame, wanted, ("moe",), live=True)["moe"]
    still = fitted.forecast(frame, wanted, ("moe",))["moe"]
    np.testing.assert_allclose(live["q0.9"], still["q0.9"], rtol=1e-6)


def test_where_readings_end_too_soon_behind_every_issue_nobody_pretends(load, fitted):
    known = load[load["meter_id"] < "meter-10"].reset_index(drop=True)
    frame, other = fitted.frame(known), like_everyone(fitted)
    late, intervals = np.flatnonzero(frame.hours.left < other.horizon), other.intervals
    intervals.fit_newcomers(other.family, frame, known, late)
    assert intervals.newcomers == 0 and intervals.conformal == fitted.intervals.conformal


def test_a_single_meter_cannot_pretend(load):
    one = load[load["meter_id"] == "meter-00"].reset_index(drop=True)
    made = Forecaster("moe", PLACE, **QUICK).fit(one, chronological_split(one, PLACE))
    assert made.intervals.newcomers == 0 and len(made.predict(one)) == 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), gaps=st.sampled_from([0.0, 0.3, 1.0]))
def test_an_age_knows_nothing_of_the_load_after_the_issue(seed, gaps):
    table = readings(400, meters=2, gaps=gaps, seed=seed)
    generator = np.random.default_rng(seed)
    hours = make_hours(table)
    origin = generator.integers(0, 400 - 24, 2) + np.array([0, 400])
    wanted = Wanted(origin, np.ones(2, int), 24)
    later = np.arange(800) >= np.repeat(origin, 400)
    poisoned = table.assign(consumption=table["consumption"].mask(later, 1e9))
    after = make_hours(poisoned)
    assert np.array_equal(age_of(hours, wanted), age_of(after, wanted))
    assert np.array_equal(newcomer_group(hours, wanted, 2), newcomer_group(after, wanted, 2))


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), ahead=st.sampled_from([1, 24, 168]))
def test_pretenders_are_stretches_of_one_meter_before_and_after_the_issue(seed, ahead):
    table = readings(700, meters=2, gaps=0.1, seed=seed)
    hours = make_hours(table)
    origins = np.flatnonzero(hours.left <= 300)
    part, history, origin = pretenders(table, hours, origins, ahead, seed)
    new = make_hours(part)
    assert np.array_equal(np.diff(new.bounds), history + ahead)
    assert (history <= LONGEST).all() and set(np.digitize(history, AGES)) <= {0, 1, 2, 3}
    for number in range(0, len(origin), 97):
        first = origin[number] - history[number]
        rows = slice(first, origin[number] + ahead)
        assert hours.meter[rows].min() == hours.meter[rows].max()
        own = slice(new.bounds[number], new.bounds[number + 1])
        assert np.array_equal(new.load[own], hours.load[rows], equal_nan=True)
        assert (new.timestamp.iloc[own].to_numpy() == hours.timestamp.iloc[rows].to_numpy()).all()


@pytest.mark.parametrize("ahead", [1, 24])
def test_pretenders_are_of_every_age(load, ahead):
    hours = make_hours(load)
    _, history, _ = pretenders(load, hours, np.flatnonzero(hours.left <= 1000), ahead)
    assert np.bincount(np.digitize(history, AGES), minlength=4).min() >= 10


def test_the_same_seed_draws_the_same_pretenders(load):
    hours = make_hours(load)
    origins = np.flatnonzero(hours.left <= 300)
    one, again, other = (pretenders(load, hours, origins, 1, seed) for seed in (3, 3, 4))
    assert np.array_equal(one[1], again[1]) and np.array_equal(one[2], again[2])
    assert not np.array_equal(one[2], other[2])
