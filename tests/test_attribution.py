"""The parts of a score add up to it, for every detector and for the ensemble."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from smartgrid_ai.anomaly.attribution import (
    Attribution,
    ForestPaths,
    copy_attribution,
    machine_attribution,
    through,
    weighted_mean,
)
from smartgrid_ai.anomaly.calibration import TailCalibration, unit_score
from smartgrid_ai.anomaly.detectors import IsolationForestDetector, OneClassSVMDetector

EXACT = {"atol": 1e-9, "rtol": 0}


def some_rows(count: int, width: int = 6, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(count, width)) @ random.normal(size=(width, width))


@pytest.mark.parametrize("count", [2, 3, 30, 256, 2000])
def test_paths_add_up_to_the_score_of_the_forest(count):
    rows = some_rows(count)
    forest = IsolationForestDetector(trees=20).fit(rows, seed=1)
    asked = np.vstack([rows[:50], 10 * some_rows(50, seed=2), np.zeros((1, 6))])
    found = ForestPaths(forest.model).attribute(asked)
    np.testing.assert_allclose(found.total, np.log2(forest.score(asked)), **EXACT)


def test_rows_on_a_cut_turn_where_the_forest_turns_them():
    rows = np.round(some_rows(500), 1).astype(np.float32).astype(np.float64)
    forest = IsolationForestDetector(trees=20).fit(rows)
    thresholds = np.concatenate([tree.tree_.threshold for tree in forest.model.estimators_])
    random = np.random.default_rng(0)
    asked = random.choice(thresholds, (300, 6)) + random.choice([-1e-9, 0.0, 1e-9], (300, 6))
    found = ForestPaths(forest.model).attribute(asked)
    np.testing.assert_allclose(found.total, np.log2(forest.score(asked)), **EXACT)


def test_trees_that_see_some_of_the_features_blame_the_right_ones():
    rows = some_rows(300)
    forest = IsolationForest(n_estimators=10, max_features=0.5, random_state=0).fit(rows)
    found = ForestPaths(forest).attribute(rows)
    np.testing.assert_allclose(found.total, np.log2(-forest.score_samples(rows)), **EXACT)
    unseen = np.setdiff1d(np.arange(6), np.concatenate(forest.estimators_features_[:1]))
    forest.estimators_, forest.estimators_features_ = (
        forest.estimators_[:1],
        forest.estimators_features_[:1],
    )
    assert not ForestPaths(forest).attribute(rows).parts[:, unseen].any()


def test_constant_rows_have_a_base_and_no_parts():
    rows = np.zeros((50, 3))
    forest = IsolationForestDetector().fit(rows)
    found = ForestPaths(forest.model).attribute(rows)
    assert not found.parts.any()
    np.testing.assert_allclose(found.total, np.log2(forest.score(rows)), **EXACT)


def test_base_of_the_forest_is_what_training_rows_have_on_average():
    rows = some_rows(256)  # each tree is grown on all of them
    found = ForestPaths(IsolationForestDetector().fit(rows).model).attribute(rows)
    np.testing.assert_allclose(found.total.mean(), found.base, **EXACT)


@pytest.mark.parametrize("exact_up_to", [20_000, 100])
def test_distances_add_up_to_the_score_of_the_machine(exact_up_to):
    machine = OneClassSVMDetector(exact_up_to=exact_up_to).fit(some_rows(400), seed=1)
    asked = np.vstack([some_rows(400)[:50], 20 * some_rows(3000, seed=2)])
    found = machine_attribution(machine.model, asked)
    np.testing.assert_allclose(found.total, machine.score(asked), **EXACT)
    if exact_up_to > 400:
        assert (found.parts >= -1e-12).all()


def test_row_on_a_support_vector_is_no_division_by_zero():
    machine = OneClassSVMDetector().fit(some_rows(50))
    support = machine.model.support_vectors_
    found = machine_attribution(machine.model, support)
    np.testing.assert_allclose(found.total, machine.score(support), **EXACT)


@pytest.mark.parametrize("feature", range(6))
@pytest.mark.parametrize("method", ["forest", "machine", "nystroem"])
def test_the_feature_that_was_changed_is_named_first(method, feature):
    usual = np.random.default_rng(0).normal(size=(800, 6))
    strange = usual[:20].copy()
    strange[:, feature] = 9.0
    if method == "forest":
        found = ForestPaths(IsolationForestDetector().fit(usual).model).attribute(strange)
    else:
        machine = OneClassSVMDetector(exact_up_to=1000 if method == "machine" else 10).fit(usual)
        found = machine_attribution(machine.model, strange)
    assert (found.parts.argmax(axis=1) == feature).mean() > 0.9


def test_copies_add_up_to_the_squared_error():
    rows, copies = some_rows(20), some_rows(20, seed=1)
    found = copy_attribution(rows, copies)
    np.testing.assert_allclose(found.total, np.square(rows - copies).mean(axis=1), **EXACT)


numbers = st.lists(st.floats(-5, 5), min_size=3, max_size=3)


@given(st.lists(numbers, min_size=1, max_size=10), st.floats(-3, 3), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_curves_keep_the_sum(parts, base, seed):
    raw = Attribution(base, np.array(parts))
    usual = np.random.default_rng(seed).normal(size=200)
    curve = TailCalibration().fit(usual).surprise
    surprise = through(raw, curve)
    np.testing.assert_allclose(surprise.total, curve(raw.total), **EXACT)
    both = through(weighted_mean([surprise, raw], np.array([0.7, 0.3])), np.arctan)
    expected = np.arctan(0.7 * curve(raw.total) + 0.3 * raw.total)
    np.testing.assert_allclose(both.total, expected, **EXACT)
    unit = through(surprise, unit_score)
    np.testing.assert_allclose(unit.total, unit_score(curve(raw.total)), **EXACT)


def test_rows_at_the_base_have_no_parts_to_share():
    at_base = through(Attribution(1.0, np.array([[2.0, -2.0], [0.0, 0.0]])), np.exp)
    assert not at_base.parts.any() and at_base.base == np.exp(1.0)
    assert len(through(Attribution(1.0, np.zeros((0, 2))), np.exp).total) == 0
