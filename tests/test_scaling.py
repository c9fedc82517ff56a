"""Ratios, anchors and encodings: finite whatever comes in, and free of units."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loads import readings

from smartgrid_ai.features import make_features
from smartgrid_ai.readings import DataError
from smartgrid_ai.scaling import (
    COLUMN,
    Preprocessor,
    RowEncoder,
    anchor,
    feature_matrix,
    from_ratios,
    meter_weights,
    ratios,
    row_scale,
)


@pytest.fixture(scope="module")
def table():
    return make_features(readings(900, meters=2, gaps=0.03))


@given(seed=st.integers(0, 10_000), factor=st.sampled_from([1e-3, 1e3, 1e6]))
@settings(max_examples=30, deadline=None)
def test_scale_and_anchor_follow_the_unit(seed, factor):
    rows = feature_matrix(make_features(readings(420, gaps=0.1, seed=seed)))[200:]
    scaled = rows.copy()
    scaled[:, 8:28] *= factor
    np.testing.assert_allclose(row_scale(scaled, factor), row_scale(rows) * factor, rtol=1e-12)
    np.testing.assert_allclose(anchor(scaled, factor), anchor(rows) * factor, rtol=1e-9)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_ratios_come_back_exactly(seed):
    rows = feature_matrix(make_features(readings(450, seed=seed)))[366:]
    scale = row_scale(rows)
    np.testing.assert_allclose(from_ratios(ratios(rows, scale), scale), rows, rtol=1e-9, atol=1e-9)


def test_preprocessor_returns_watts_to_1e_6(table):
    rows = feature_matrix(table)
    whole = rows[~np.isnan(rows).any(axis=1)]
    preprocessor = Preprocessor().fit(rows)
    back = preprocessor.inverse_transform(preprocessor.transform(whole), preprocessor.scale(whole))
    np.testing.assert_allclose(back, whole, rtol=1e-6, atol=1e-6)


def test_preprocessor_learns_from_its_rows_only(table):
    rows = feature_matrix(table)
    first = Preprocessor().fit(rows[:500]).transform(rows[:500])
    changed = rows.copy()
    changed[500:] *= 7
    assert (Preprocessor().fit(changed[:500]).transform(changed[:500]) == first).all()


def test_a_row_that_knows_nothing_is_finite(table):
    encoder = RowEncoder().fit(table)
    empty = np.full((1, 31), np.nan)
    empty[0, :8] = 0
    encoded = encoder.encode_rows(empty)
    assert (
        np.isfinite(encoded.inputs).all()
        and np.isfinite(encoded.anchor).all()
        and (encoded.scale > 0).all()
    )


@pytest.mark.parametrize("value", [0.0, 1e-12, 1e12, -300.0])
def test_odd_loads_are_finite(table, value):
    odd = readings(500)
    odd["consumption"] = value
    encoded = RowEncoder().fit(table).encode(make_features(odd))
    assert (
        np.isfinite(encoded.inputs).all()
        and np.isfinite(encoded.anchor).all()
        and (encoded.scale > 0).all()
    )


def test_after_a_gap_the_anchor_is_seasonal():
    table = readings(500)
    table.loc[450:460, "consumption"] = np.nan
    rows = feature_matrix(make_features(table))
    expected = 0.5 * (rows[455, COLUMN["lag_24"]] + rows[455, COLUMN["lag_168"]])
    assert anchor(rows)[455] == pytest.approx(expected)


def test_unknown_covariates_are_flagged(table):
    encoder = RowEncoder().fit(table)
    bare = encoder.encode(table.drop(columns=list(encoder.covariates))).inputs
    assert (bare[:, encoder.covariate_columns] == 0).all()
    assert encoder.encode(table).inputs.shape == bare.shape


def test_too_little_history_is_named():
    with pytest.raises(DataError, match="'lag_365' is missing in every training row"):
        Preprocessor().fit(feature_matrix(make_features(readings(300))))


@given(
    sizes=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6),
    unit=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_the_calmer_a_meter_the_more_its_hours_count(sizes, unit, seed):
    rng, count = np.random.default_rng(seed), len(sizes)
    meter = rng.permutation(np.arange(count).repeat(50))
    misses = rng.normal(size=len(meter)) * np.array(sizes)[meter]
    misses[rng.random(len(meter)) < 0.1] = np.nan
    weights = meter_weights(misses * unit, meter, count)
    mean = np.array([np.nanmean(np.abs(misses[meter == number])) for number in range(count)])
    assert (
        weights.mean() == pytest.approx(1) and (np.diff(weights[np.argsort(mean)]) <= 1e-12).all()
    )
    np.testing.assert_allclose(weights, meter_weights(misses, meter, count), rtol=1e-9)


def test_meters_without_misses_count_as_the_median_and_one_alone_as_one():
    misses, meter = np.array([1.0, -1.0, 4.0, np.nan, 0.0, 2.0]), np.array([0, 0, 1, 2, 3, 4])
    weights = meter_weights(misses, meter, 6)
    assert (
        weights[2] == weights[3] == weights[5] == weights[4]
        and weights[0] > weights[4] > weights[1]
    )
    assert meter_weights(np.array([np.nan]), np.array([0]), 1) == 1
    assert meter_weights(np.array([0.3, -7.0]), np.array([0, 0]), 1) == 1
