"""Load by calendar and weather: what a short history may say, and what it must not."""

import numpy as np
import pandas as pd
import pytest
from loads import readings

from smartgrid_ai.hours import make_hours
from smartgrid_ai.readings import Place
from smartgrid_ai.structure import StructureModel

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
