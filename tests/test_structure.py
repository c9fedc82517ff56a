"""Load by calendar and weather: what a short history may say, and what it must not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loads import readings

from smartgrid_ai.encoder import OriginEncoder, aged_structure
from smartgrid_ai.forecast.daily import AGED, DailyPath, OriginData
from smartgrid_ai.hours import WEEKDAY, filled_load, make_hours
from smartgrid_ai.origins import BLOCK, Gatherer
from smartgrid_ai.readings import Place
from smartgrid_ai.structure import StructureModel, _principal_components

YEAR = 364 * 24  # hours, whole weeks


@pytest.fixture(scope="module")
def hours():
    "Two years, in which the second meter is large in winter."
    load = readings(2 * YEAR + 24 * 30, meters=2, temperature=False)
    winter = 1 + 0.5 * np.cos(2 * np.pi * load["timestamp"].dt.day_of_year / 365.25)
    second = load["meter_id"] == "meter-1"
    load["consumption"] *= np.where(second, winter, 1.0)
    return make_hours(load, Place())


def learnt(hours, days):
    "Expected loads by a structure that was fitted on the first days."
    model, age = StructureModel(), np.arange(len(hours)) - hours.first
    model.fit(hours, age < 24 * days)
    return model.apply(hours)


@pytest.mark.parametrize("days", [14, 60, 250])
def test_less_than_a_year_says_nothing_of_the_time_of_year(hours, days):
    expected = learnt(hours, days)
    assert np.isfinite(expected).all()
    for first, last in zip(hours.bounds[:-1], hours.bounds[1:]):
        own = expected[first:last]
        np.testing.assert_allclose(own[YEAR:], own[:-YEAR], atol=1e-6)


def test_a_year_does(hours):
    expected = learnt(hours, 365)[slice(*hours.bounds[1:])]
    month = hours.timestamp[slice(*hours.bounds[1:])].dt.month.to_numpy()
    assert expected[month == 1].mean() > 0.3 > -0.3 > expected[month == 7].mean()


def test_a_train_part_without_hours_is_no_error(hours):
    model = StructureModel()
    values = model.fit(hours, np.zeros(len(hours), bool))
    assert np.isfinite(values).all() and pd.notna(model.state["level"]).all()


@pytest.fixture(scope="module")
def kinds():
    "Ten weeks of six meters: three rest at weekends, three do not."
    load = readings(24 * 70, meters=6, temperature=False)
    number = load["meter_id"].str.removeprefix("meter-").astype(int)
    resting = (number < 3) & (load["timestamp"].dt.day_of_week >= 5)
    load["consumption"] *= np.where(resting, 0.3, 1.0) * (1 + number)
    return make_hours(load, Place())


def encoded(hours):
    "An encoder that learnt from the first eight weeks, and its table."
    encoder = OriginEncoder()
    return encoder, encoder.fit(hours, np.arange(len(hours)) - hours.first < 24 * 56)


@pytest.fixture(scope="module")
def learnt_from_kinds(kinds):
    return encoded(kinds)


def monday_by_monday(hours, table, meter, days):
    "Mean loads of a late Monday, in sizes of the days before it: expected of a meter so old, and true."
    rows = np.arange(hours.bounds[meter], hours.bounds[meter + 1])
    mondays = (hours.calendar[rows, WEEKDAY.start] > 0) & (hours.civil_hour[rows] == 0)
    origin = torch.from_numpy(rows[mondays][-1:])
    around = Gatherer(table, origin, origin - BLOCK * days)
    future = origin[:, None] + torch.arange(BLOCK)
    return float(around.expected(future).mean()), float((table.load[future] / around.size).mean())


@pytest.mark.parametrize("meter", [0, 5])
@pytest.mark.parametrize("days", [3, 7])
def test_a_weekend_tells_the_kind_of_a_meter(kinds, learnt_from_kinds, meter, days):
    expected, true = monday_by_monday(kinds, learnt_from_kinds[1], meter, days)
    assert expected == pytest.approx(true, rel=0.1)


def test_without_a_reading_a_meter_is_its_group(kinds, learnt_from_kinds):
    table = learnt_from_kinds[1]
    origin = torch.tensor([int(kinds.bounds[1]) + 24 * 60])
    shares = Gatherer(table, origin, origin).shares[0, :, 0]
    assert shares[0] == pytest.approx(1.0) and not shares[1:].any()


def test_a_single_meter_has_nobody_to_differ_from(kinds):
    one = make_hours(readings(24 * 70, temperature=False), Place())
    encoder, table = encoded(one)
    assert not table.ways[:, 1:].any()
    origin = torch.tensor([24 * 60])
    pretending = Gatherer(table, origin, origin - 48)
    assert torch.isfinite(pretending.expected(origin[:, None] + torch.arange(24))).all()
    assert encoder.table(kinds).ways[:, 1:].any(), "other meters may differ as this one does"


def test_a_monster_does_not_become_the_first_component():
    generator = np.random.default_rng(0)
    apart, gram = generator.normal(size=(30, 40)), np.eye(40)
    ordinary = np.linalg.norm(_principal_components(apart, gram)[0])
    apart[7] *= 1e6
    assert np.linalg.norm(_principal_components(apart, gram)[0]) < 2 * ordinary


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(0, 1e9), min_size=1, max_size=40),
    st.integers(0, 20 * 24),
)
def test_shares_are_finite_whatever_the_first_readings(kinds, learnt_from_kinds, loads, age):
    encoder, _ = learnt_from_kinds
    load = np.full(len(kinds), np.nan)
    load[24 * 30 : 24 * 30 + len(loads)] = loads
    young = replace(kinds, load=load, filled=filled_load(load), size=load, meters=("new",) * 6)
    table = encoder.table(young)
    origin = torch.tensor([24 * 30 + age])
    around = Gatherer(table, origin)
    assert torch.isfinite(around.shares).all()
    assert torch.isfinite(around.expected(origin[:, None] + torch.arange(24))).all()


def test_weather_never_met_does_not_explode():
    "Six weeks with one mild weekend hour, then heat: the structure does not add up tens of loads."
    load = readings(24 * 70, temperature=True)
    clock = load["timestamp"]
    cold = clock < clock.iloc[0] + pd.Timedelta(weeks=6)
    load["temperature"] = np.where(cold, 2.0, 38.0)
    mild = clock == clock[clock.dt.day_of_week == 6].iloc[14]
    load.loc[mild, "temperature"] = 21.0
    hours = make_hours(load, Place())
    assert np.abs(learnt(hours, 42)).max() < 4


@pytest.mark.parametrize("block", [1, 7])
@pytest.mark.parametrize("day", [2, 40])
def test_an_aged_structure_moves_neither_references_nor_target(
    kinds, learnt_from_kinds, block, day
):
    "At any hour, with gaps, for a meter that has just begun, and up to a week ahead."
    encoder, _ = learnt_from_kinds
    load = kinds.load.copy()
    load[100:130] = load[24 * 27 : 24 * 27 + 5] = np.nan
    table = encoder.table(replace(kinds, load=load, filled=filled_load(load)))
    origin = torch.arange(24 * 28, 24 * 28 + 30)
    first = origin - 24 * day if day < 28 else None
    profiles = torch.from_numpy(aged_structure(np.random.default_rng(day), len(origin)))
    days = np.full(len(origin), block)
    plain, aged = (encoder.encode(table, origin, days, first, a) for a in (None, profiles))
    torch.testing.assert_close(aged.target, plain.target, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(aged.anchor, plain.anchor, atol=1e-2, rtol=1e-4)
    torch.testing.assert_close(aged.future[..., -1], plain.future[..., -1], atol=1e-2, rtol=1e-3)
    expectation = encoder.width - 2
    assert ((aged.future - plain.future)[..., expectation].abs() > 1e-3).any(1).all()


def batches(days: int):
    "The first batch of training origins from so many days of one load, and the same with structures that do not age."
    load = readings(24 * days, temperature=False)
    path = DailyPath(Place())
    frame = path.fit(load, np.ones(len(load), bool))
    supply = OriginData(frame, np.ones(len(load), bool), np.ones(len(load), bool), 1, 2, 0)
    ageing = supply.train_dataloader().dataset
    plain = supply.train_dataloader().dataset
    plain.aged = 0.0
    return ageing.aged, next(iter(ageing)), next(iter(plain))


def test_half_of_the_samples_have_aged_when_no_year_was_seen():
    share, ageing, plain = batches(200)
    assert share == AGED
    differ = (ageing[0] != plain[0]).flatten(1).any(1)
    assert 0.25 < differ.float().mean() < 0.75
    torch.testing.assert_close(ageing[2], plain[2], atol=1e-2, rtol=1e-3)


def test_with_a_year_of_origins_no_structure_ages():
    share, ageing, plain = batches(365 + 30)
    assert not share and all(torch.equal(a, b) for a, b in zip(ageing, plain))
