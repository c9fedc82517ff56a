"""Scaling, calibration and the single detectors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_ai.anomaly.autoencoder import AutoencoderDetector
from smartgrid_ai.anomaly.calibration import TailCalibration, unit_score
from smartgrid_ai.anomaly.detectors import (
    POWER_FEATURES,
    IsolationForestDetector,
    OneClassSVMDetector,
    RowScaler,
    row_levels,
)
from smartgrid_ai.anomaly.neighbours import LocalOutlierFactorDetector, NearestNeighbourDetector
from smartgrid_ai.features import FEATURE_NAMES
from smartgrid_ai.readings import DataError

IS_POWER = np.array([name in POWER_FEATURES for name in FEATURE_NAMES])


def some_rows(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = random.normal(1000, 100, (count, 31))
    rows[:, 0] = random.integers(0, 24, count)
    return rows


def detectors():
    return [
        IsolationForestDetector(),
        OneClassSVMDetector(),
        AutoencoderDetector(steps=200),
        NearestNeighbourDetector(),
        LocalOutlierFactorDetector(),
    ]


def test_power_features_are_those_in_watts():
    assert IS_POWER.sum() == 20
    assert not IS_POWER[:8].any() and not IS_POWER[-3:].any()


@given(st.floats(1e-6, 1e9), st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_ratios_do_not_depend_on_the_unit(factor, seed):
    rows = some_rows(5, seed)
    scaled = np.where(IS_POWER, rows * factor, rows)
    scaler = RowScaler(FEATURE_NAMES)
    np.testing.assert_allclose(scaler.ratios(scaled), scaler.ratios(rows), rtol=1e-9)


@pytest.mark.parametrize("bad", [0.0, np.nan, -0.0, np.inf])
def test_levels_are_always_positive(bad):
    rows = some_rows(3)
    rows[:, FEATURE_NAMES.index("rolling_mean_168")] = bad
    assert (row_levels(rows, FEATURE_NAMES) > 0).all()
    assert np.isfinite(row_levels(rows, FEATURE_NAMES)).all()
    dead = np.where(IS_POWER, 0.0, rows)
    assert row_levels(dead, FEATURE_NAMES).tolist() == [1, 1, 1]


def test_scaler_fills_gaps_and_limits_extremes():
    rows = some_rows(200)
    scaler = RowScaler(FEATURE_NAMES).fit(rows)
    odd = rows[:2].copy()
    odd[0, 25], odd[1, 25] = np.nan, 1e12
    scaled = scaler.transform(odd)
    assert np.isfinite(scaled).all() and scaled[1, 25] == scaler.limit


def test_scaler_learns_from_rows_without_any_value_in_a_column():
    rows = some_rows(50)
    rows[:, 25] = np.nan
    assert np.isfinite(RowScaler(FEATURE_NAMES).fit(rows).transform(some_rows(5))).all()


def test_unseen_season_is_no_anomaly():
    rows = some_rows(100)
    rows[:, FEATURE_NAMES.index("month")] = np.resize([1, 2, 3], 100)
    scaler = RowScaler(FEATURE_NAMES).fit(rows)
    march, july = rows[2:3].copy(), rows[2:3].copy()
    july[0, FEATURE_NAMES.index("month")] = 7
    np.testing.assert_array_equal(scaler.transform(march), scaler.transform(july))


def test_inverse_returns_the_row():
    rows = some_rows(60)
    scaler = RowScaler(FEATURE_NAMES, limit=1e9).fit(rows)
    load = np.arange(31) >= 8
    back = scaler.inverse(scaler.transform(rows), rows)
    np.testing.assert_allclose(back[:, load], rows[:, load], rtol=1e-6)


@pytest.mark.parametrize("rows", [np.zeros((0, 31)), np.zeros((3, 30)), np.zeros(31)])
def test_wrong_shapes_are_named(rows):
    with pytest.raises(DataError, match=r"rows|shape"):
        RowScaler(FEATURE_NAMES).fit(rows)


@pytest.mark.parametrize("detector", detectors(), ids=lambda detector: detector.name)
def test_detectors_find_the_outlier_and_repeat_themselves(detector):
    random = np.random.default_rng(1)
    rows = random.normal(size=(400, 6))
    strange = np.vstack([rows[:20], np.full((1, 6), 8.0)])
    first = detector.fit(rows, seed=3).score(strange)
    assert first.argmax() == 20
    np.testing.assert_array_equal(first, detector.fit(rows, seed=3).score(strange))
    order = random.permutation(21)
    np.testing.assert_allclose(detector.score(strange[order]), first[order], atol=1e-6)


@pytest.mark.parametrize("detector", detectors(), ids=lambda detector: detector.name)
def test_detectors_stand_constant_rows(detector):
    rows = np.zeros((60, 4))
    assert np.isfinite(detector.fit(rows).score(rows)).all()


def test_fitting_leaves_the_random_state_of_torch_alone():
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    AutoencoderDetector(steps=50).fit(np.random.default_rng(0).normal(size=(100, 4)))
    assert torch.equal(torch.rand(3), expected)


def test_bottleneck_of_the_contract():
    detector = AutoencoderDetector(steps=20).fit(some_rows(60) / 1000)
    assert detector.network.encoder.weight.shape == (16, 31) and "31→16→31" in detector.kind


def test_machine_says_what_it_is():
    rows = np.random.default_rng(0).normal(size=(300, 3))
    assert "exact" in OneClassSVMDetector().fit(rows).kind
    assert "Nyström" in OneClassSVMDetector(exact_up_to=299).fit(rows).kind


def test_support_vector_machine_far_out_still_has_an_order():
    random = np.random.default_rng(0)
    rows = random.normal(size=(500, 5))
    machine = OneClassSVMDetector().fit(rows)
    outwards = np.outer(np.arange(1.0, 21), np.ones(5))
    assert (np.diff(machine.score(outwards)) > 0).all()
    asked = np.vstack([rows, outwards])
    plain = -machine.model.decision_function(asked)
    clear = np.abs(plain) > 1e-9
    assert ((machine.score(asked) > 0) == (plain > 0))[clear].all()


def test_copies_are_those_of_the_network():
    import torch

    rows = np.random.default_rng(0).normal(size=(200, 5))
    detector = AutoencoderDetector(steps=50).fit(rows)
    with torch.inference_mode():
        copied = detector.network(torch.as_tensor(rows, dtype=torch.float32)).numpy()
    np.testing.assert_allclose(detector.copies(rows), copied, atol=1e-5)


@pytest.mark.parametrize("make", [NearestNeighbourDetector, LocalOutlierFactorDetector])
def test_neighbours_keep_a_sample_and_say_so(make):
    rows = np.random.default_rng(0).normal(size=(500, 3))
    detector = make(most_rows=100).fit(rows, seed=2)
    assert "among 100 of 500 training rows" in detector.kind
    again = make(most_rows=100).fit(rows, seed=2)
    np.testing.assert_array_equal(detector.score(rows), again.score(rows))
    assert not np.array_equal(
        detector.score(rows), make(most_rows=100).fit(rows, seed=3).score(rows)
    )


def test_a_fault_that_was_learned_once_is_still_far_from_its_neighbours():
    rows = np.random.default_rng(0).normal(size=(300, 3))
    rows[0] = 9.0
    detector = NearestNeighbourDetector().fit(rows)
    assert detector.score(rows)[0] > 2 * detector.score(rows)[1:].max()


@pytest.mark.parametrize("make", [NearestNeighbourDetector, LocalOutlierFactorDetector])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_neighbours_stand_few_rows(make, count):
    rows = np.arange(2.0 * count).reshape(count, 2)
    assert np.isfinite(make().fit(rows).score(rows)).all()


def test_rows_that_repeat_do_not_count_as_density():
    random = np.random.default_rng(0)
    rows = np.vstack([np.zeros((500, 2)), random.normal(size=(500, 2))])
    factor = LocalOutlierFactorDetector().fit(rows)
    assert factor.score(np.array([[0.05, 0.05]]))[0] < 2


scores = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200)


@given(scores, st.lists(st.floats(-1e7, 1e7), min_size=2, max_size=50), st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_surprise_never_falls_with_the_score(usual, asked, memory):
    surprise = TailCalibration().fit(np.array(usual), memory).surprise(np.sort(asked))
    assert np.isfinite(surprise).all() and (surprise >= 0).all()
    assert (np.diff(surprise) >= -1e-9).all()
    unit = unit_score(surprise)
    assert ((unit >= 0) & (unit <= 1)).all()


@pytest.mark.parametrize("draw", ["normal", "exponential", "standard_cauchy", "uniform"])
def test_one_usual_score_in_a_hundred_raises_an_alarm(draw):
    random = np.random.default_rng(0)
    calibration = TailCalibration().fit(getattr(random, draw)(size=20_000))
    alarms = unit_score(calibration.surprise(getattr(random, draw)(size=50_000))) > 0.5
    assert 0.007 < alarms.mean() < 0.013


def test_stranger_than_anything_seen_still_has_an_order():
    calibration = TailCalibration().fit(np.random.default_rng(0).normal(size=5000))
    unit = unit_score(calibration.surprise(np.array([6.0, 7.0, 20.0])))
    assert (np.diff(unit) > 0).all() and unit[-1] < 1
