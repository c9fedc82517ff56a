"""Quantiles that never cross and hold what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartgrid_ai.errors import DataError
from smartgrid_ai.forecast.calibration import QUANTILE_NAMES, Conformal, HourlySpread


@given(
    misses=st.lists(st.floats(-1e6, 1e6), min_size=20, max_size=300),
    forecast=st.floats(0, 1e9),
    spread=st.floats(1e-6, 1e6),
)
def test_quantiles_never_cross_and_confidence_is_a_probability(misses, forecast, spread):
    conformal = Conformal.fit(np.array(misses), np.zeros(len(misses)), np.ones(len(misses)))
    table = conformal.table(np.array([forecast]), np.array([spread]), lowest=0.0)
    assert (np.diff(table[list(QUANTILE_NAMES)].to_numpy()) >= 0).all()
    assert 0 <= table["confidence"][0] <= 1
    assert table.to_numpy().min() >= 0


def test_coverage_holds_on_new_hours():
    rng = np.random.default_rng(1)
    spread = rng.uniform(1, 5, 8000)
    actual = 50 + spread * rng.standard_t(3, 8000)
    conformal = Conformal.fit(actual[:4000], np.full(4000, 50.0), spread[:4000])
    table = conformal.table(np.full(4000, 50.0), spread[4000:])
    for low, high, share in (("q0.1", "q0.9", 0.8), ("q0.025", "q0.975", 0.95)):
        inside = (actual[4000:] >= table[low]) & (actual[4000:] <= table[high])
        assert inside.mean() == pytest.approx(share, abs=0.02)


def test_a_sure_forecast_is_confident_and_a_vague_one_is_not():
    misses = np.random.default_rng(0).normal(size=1000)
    conformal = Conformal.fit(misses, np.zeros(1000), np.ones(1000))
    sure, vague = conformal.probability_near(np.array([1000.0, 1000.0]), np.array([1.0, 1000.0]))
    assert sure > 0.99 and vague < 0.15


def test_too_few_hours_are_an_error():
    with pytest.raises(DataError, match="only 3 observed hours to calibrate on"):
        Conformal.fit(np.array([1.0, 2.0, 3.0, np.nan]), np.zeros(4), np.ones(4))


def test_an_hour_never_seen_gets_the_overall_spread():
    spread = HourlySpread.fit(np.array([1.0, 1.0, 2.0]), np.array([1.0, 3.0, np.nan]), np.ones(3))
    assert spread.spread(np.array([5.0]), np.array([10.0])) == pytest.approx(20.0)
