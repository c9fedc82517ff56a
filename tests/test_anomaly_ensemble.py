"""The ensemble of three: votes, calibrated scores, explanations, files."""

import json

import numpy as np
import pytest

from smartgrid_ai.anomaly.bundle import FILES
from smartgrid_ai.anomaly.detectors import POWER_FEATURES
from smartgrid_ai.anomaly.ensemble import DETECTOR_NAMES, AnomalyEnsemble, load_ensemble
from smartgrid_ai.features import CALENDAR_NAMES, FEATURE_NAMES, make_features
from smartgrid_ai.readings import DataError, ModelError

IS_POWER = np.array([name in POWER_FEATURES for name in FEATURE_NAMES])


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    import pandas as pd

    random = np.random.default_rng(0)
    hours = pd.date_range("2024-01-01", periods=1700, freq="h", tz="UTC").as_unit("us")
    load = 800 + 300 * np.sin(hours.hour * 2 * np.pi / 24) + random.normal(0, 40, 1700)
    table = pd.DataFrame({"meter_id": "a", "timestamp": hours, "consumption": np.asarray(load)})
    features = make_features(table)
    return features.loc[~features["warm_up"], list(FEATURE_NAMES)].to_numpy()


@pytest.fixture(scope="module")
def ensemble(rows) -> AnomalyEnsemble:
    return AnomalyEnsemble().fit(rows[:1000], seed=0)


@pytest.fixture(scope="module")
def spike(rows) -> np.ndarray:
    spike = rows[-1:].copy()
    for name in ("lag_1", "diff_1", "diff_24", "diff_168", "rolling_max_24", "rolling_max_168"):
        spike[0, FEATURE_NAMES.index(name)] += 5000
    return spike


def test_spike_is_an_anomaly_and_named(ensemble, spike):
    judged = ensemble.score_rows(spike).iloc[0]
    assert judged["is_anomaly"] and judged["score"] > 0.5 and judged["probability"] > 0.99
    contributions = ensemble.explain(spike)[0]
    assert contributions[0]["feature"] in (
        "lag_1",
        "diff_1",
        "diff_24",
        "diff_168",
    ) or contributions[0]["feature"].startswith("rolling_max")
    text = ensemble.sentence(judged, contributions)
    assert (
        text.startswith("Anomaly: 3 of 3 detectors object") and contributions[0]["feature"] in text
    )


def test_columns_are_consistent(ensemble, rows, spike):
    judged = ensemble.score_rows(np.vstack([rows, spike]))
    votes = judged[[f"vote_{name}" for name in DETECTOR_NAMES]]
    assert set(np.unique(votes)) <= {-1, 1}
    objecting = (votes == -1).sum(axis=1)
    assert (judged["is_anomaly"] == (objecting >= 2)).all()
    assert (judged["is_anomaly"] == (judged["score_vote"] > 0.5)).all()
    agreeing = objecting.where(judged["is_anomaly"], 3 - objecting)
    np.testing.assert_allclose(judged["confidence"], agreeing / 3)
    assert (judged["models_agreement"] == agreeing.astype(str) + "/3").all()
    assert judged["score"].between(0, 1).all() and judged["probability"].between(0, 1).all()
    ordered = judged.sort_values("score")
    assert ordered["probability"].is_monotonic_increasing


def test_usual_rows_are_mostly_quiet(ensemble, rows):
    assert ensemble.score_rows(rows[1000:])["is_anomaly"].mean() < 0.08


def test_unit_of_the_meter_does_not_matter(ensemble, rows):
    kilowatts = np.where(IS_POWER, rows / 1000, rows)
    np.testing.assert_allclose(
        ensemble.score_rows(kilowatts)["score"], ensemble.score_rows(rows)["score"], atol=1e-5
    )


def test_rows_are_judged_one_by_one(ensemble, rows):
    together = ensemble.score_rows(rows[:30])["score"].to_numpy()
    order = np.random.default_rng(0).permutation(30)
    np.testing.assert_allclose(
        ensemble.score_rows(rows[:30][order])["score"], together[order], atol=1e-6
    )
    np.testing.assert_allclose(ensemble.score_rows(rows[:1])["score"], together[:1], atol=1e-6)


def test_same_seed_same_ensemble(ensemble, rows):
    again = AnomalyEnsemble().fit(rows[:1000], seed=0).score_rows(rows)
    np.testing.assert_array_equal(again["score"], ensemble.score_rows(rows)["score"])


def test_missing_values_are_scored_and_take_no_blame(ensemble, rows):
    holes = rows[:4].copy()
    holes[0, 10], holes[1, :], holes[2, 8:] = np.nan, np.nan, np.nan
    assert np.isfinite(ensemble.score_rows(holes)["score"]).all()
    listed = ensemble.explain(holes)
    assert FEATURE_NAMES[10] not in [part["feature"] for part in listed[0]]
    assert listed[1] == [] and listed[2] == []
    assert "score" in ensemble.sentence(ensemble.score_rows(holes).iloc[1], listed[1])


def test_contributions_sum_to_one_without_the_calendar(ensemble, rows):
    for parts in ensemble.explain(rows[:20]):
        assert abs(sum(part["share"] for part in parts) - 1) < 1e-9
        assert not {part["feature"] for part in parts} & set(CALENDAR_NAMES)
        shares = [part["share"] for part in parts]
        assert shares == sorted(shares, reverse=True)
        json.dumps(parts, allow_nan=False)
    assert len(ensemble.explain(rows[:1], top=3)[0]) == 3
    assert ensemble.explain(rows[:0]) == []


def test_no_rows_no_scores(ensemble):
    assert len(ensemble.score_rows(np.zeros((0, 31)))) == 0


@pytest.mark.parametrize("count", [0, 1, 19])
def test_too_few_rows_are_refused(rows, count):
    with pytest.raises(DataError, match="too few"):
        AnomalyEnsemble().fit(rows[:count])


def test_wrong_width_is_refused(ensemble):
    with pytest.raises(DataError, match="31"):
        ensemble.score_rows(np.zeros((2, 30)))
    with pytest.raises(DataError, match="31"):
        AnomalyEnsemble().fit(np.zeros((100, 30)))


def test_unfitted_ensemble_says_so(rows, tmp_path):
    with pytest.raises(ModelError, match="not fitted"):
        AnomalyEnsemble().score_rows(rows)
    with pytest.raises(ModelError, match="not fitted"):
        AnomalyEnsemble().save(tmp_path)


def test_constant_meter_can_be_learned():
    flat = np.tile(np.where(IS_POWER, 500.0, 0.0), (200, 1))
    judged = AnomalyEnsemble().fit(flat).score_rows(flat)
    assert np.isfinite(judged["score"]).all() and not judged["is_anomaly"].any()


def test_saved_and_loaded_is_the_same(ensemble, rows, spike, tmp_path):
    ensemble.save(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    again, both = load_ensemble(folder), np.vstack([rows, spike])
    first, second = ensemble.score_rows(both), again.score_rows(both)
    for name in first.select_dtypes("number"):
        np.testing.assert_allclose(first[name], second[name], atol=1e-6)
    for name in ("metrics", "data", "parameters", "feature_names"):
        assert getattr(again, name) == getattr(ensemble, name)
    assert again.explain(spike) == ensemble.explain(spike)


def test_bundle_is_small_and_holds_no_pickle(ensemble, tmp_path):
    ensemble.save(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1_500_000
    assert not any(b"\x80\x04\x95" in path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_missing_or_broken_files_are_named(ensemble, tmp_path, name):
    ensemble.save(tmp_path)
    (tmp_path / name).write_bytes(b"broken")
    with pytest.raises(ModelError, match=name):
        load_ensemble(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match=name):
        load_ensemble(tmp_path)


def test_files_that_do_not_belong_together_are_refused(ensemble, tmp_path):
    ensemble.save(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: config[key] for key in config if key != "memory"}))
    with pytest.raises(ModelError, match="belong together"):
        load_ensemble(tmp_path)
    path.write_text(json.dumps(config | {"format": 9}))
    with pytest.raises(ModelError, match="format 9"):
        load_ensemble(tmp_path)


def test_untrusted_types_are_not_opened(ensemble, tmp_path):
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    ensemble.save(tmp_path)
    skops.io.dump({"isolation_forest": FunctionTransformer(print)}, tmp_path / "detectors.skops")
    with pytest.raises(ModelError, match=r"detectors\.skops"):
        load_ensemble(tmp_path)


def test_parts_add_up_to_the_score(ensemble, rows, spike):
    holes = rows[:3].copy()
    holes[0, 10], holes[1, :], holes[2, 8:] = np.nan, np.nan, np.nan
    asked = np.vstack([rows, spike, 50 * spike, holes])
    apart, judged = ensemble.attribute(asked), ensemble.score_rows(asked)
    np.testing.assert_allclose(apart.total, judged["score"], atol=1e-9, rtol=0)
    assert apart.parts.shape == asked.shape and apart.base < 0.5
    assert len(ensemble.attribute(rows[:0]).total) == 0


def test_named_contributions_are_the_parts(ensemble, rows, spike):
    asked = np.vstack([rows[:20], spike])
    apart, listed = ensemble.attribute(asked), ensemble.explain(asked)
    for number, entries in enumerate(listed):
        assert len(entries) == 31 - len(CALENDAR_NAMES)
        for entry in entries:
            column = FEATURE_NAMES.index(entry["feature"])
            assert entry["contribution"] == apart.parts[number, column]
            assert entry["value"] == asked[number, column]
            assert (entry["share"] > 0) == (entry["contribution"] > 0)
    few = ensemble.explain(asked, top=4)
    assert few == [entries[:4] for entries in listed]


def test_weights_decide_whose_score_it_is(rows, spike):
    alone = AnomalyEnsemble(weights={name: float(name == "autoencoder") for name in DETECTOR_NAMES})
    judged = alone.fit(rows[:1000]).score_rows(rows)
    assert judged["score"].corr(judged["score_autoencoder"], method="spearman") > 0.999
    assert judged["score"].corr(judged["score_isolation_forest"], method="spearman") < 0.99
    apart = alone.attribute(np.vstack([rows, spike]))
    np.testing.assert_allclose(
        apart.total, alone.score_rows(np.vstack([rows, spike]))["score"], atol=1e-9, rtol=0
    )


def test_weights_count_by_their_ratio_and_are_equal_by_default():
    doubled = AnomalyEnsemble(weights=dict.fromkeys(DETECTOR_NAMES, 2.0))
    assert doubled.weights == AnomalyEnsemble().weights
    assert sum(doubled.weights.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"lof": 1.0},
        dict.fromkeys(DETECTOR_NAMES, 0.0),
        dict.fromkeys(DETECTOR_NAMES, -1.0),
        dict.fromkeys(DETECTOR_NAMES, np.nan),
    ],
)
def test_impossible_weights_are_refused(weights):
    with pytest.raises(DataError, match="weights"):
        AnomalyEnsemble(weights=weights)


@pytest.fixture(scope="module")
def labelled(rows, ensemble, tmp_path_factory) -> tuple[AnomalyEnsemble, np.ndarray, np.ndarray]:
    folder = tmp_path_factory.mktemp("labelled")
    ensemble.save(folder)
    asked = rows[1000:1040].copy()
    for name in ("lag_1", "diff_1", "diff_24", "diff_168"):
        asked[:15, FEATURE_NAMES.index(name)] += np.linspace(400, 3000, 15)
    return load_ensemble(folder), asked, np.arange(40) < 15


def test_labels_move_line_and_probability_but_neither_order_nor_votes(labelled, tmp_path):
    refined, asked, labels = labelled
    before = refined.score_rows(asked)
    after = refined.calibrate(asked, labels).score_rows(asked)
    assert (after["probability"].rank() == before["surprise"].rank()).all()
    assert (after["score"].rank() == before["score"].rank()).all()
    pairs = [f"vote_{name}" for name in DETECTOR_NAMES]
    assert (after[pairs] == before[pairs]).all().all()
    assert ((after["probability"] > 0.5) == (after["score"] > 0.5)).all()
    assert (after["is_anomaly"] == (after["score"] > 0.5)).all()
    objecting = (after[pairs] == -1).sum(axis=1)
    agreeing = objecting.where(after["is_anomaly"], 3 - objecting)
    assert (after["models_agreement"] == agreeing.astype(str) + "/3").all()
    np.testing.assert_allclose(refined.attribute(asked).total, after["score"], atol=1e-9, rtol=0)
    refined.save(tmp_path)
    again = load_ensemble(tmp_path)
    assert again.labelled == refined.labelled and again.labelled.anomalies == 15
    np.testing.assert_allclose(again.score_rows(asked)["probability"], after["probability"])


@pytest.mark.parametrize("wrong", ["all usual", "all anomalies", "too few", "exchanged", "a word"])
def test_labels_that_cannot_help_are_refused(labelled, wrong):
    refined, asked, labels = labelled
    given = {
        "all usual": np.zeros(40),
        "all anomalies": np.ones(40),
        "too few": labels[:-1],
        "exchanged": ~labels,
        "a word": np.where(labels, 2, 0),
    }[wrong]
    with pytest.raises(DataError, match="label"):
        refined.calibrate(asked, given)


def test_fitting_again_forgets_labels_and_paths(rows, labelled):
    refined, asked, labels = labelled
    refined.calibrate(asked, labels).fit(rows[300:700], seed=1)
    assert refined.labelled is None
    total = refined.attribute(asked).total
    np.testing.assert_allclose(total, refined.score_rows(asked)["score"], atol=1e-9, rtol=0)


def test_files_of_an_older_format_say_what_to_do(ensemble, tmp_path):
    ensemble.save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 1}))
    with pytest.raises(ModelError, match=r"format 1.*train and publish"):
        load_ensemble(tmp_path)


def test_calibrated_on_one_meter_the_detectors_stay_and_the_line_moves(ensemble, rows, spike):
    restless = rows[:600].copy()
    for name in ("lag_1", "diff_1", "diff_24", "diff_168"):
        noise = np.random.default_rng(0).normal(0, 400, 600)
        restless[:, FEATURE_NAMES.index(name)] += noise
    own = ensemble.for_meter(restless[:400])
    before = ensemble.score_rows(restless[400:])
    after = own.score_rows(restless[400:])
    assert before["is_anomaly"].mean() > 0.2 > 0.06 > after["is_anomaly"].mean()
    for name in DETECTOR_NAMES:
        ranks = before[f"score_{name}"].corr(after[f"score_{name}"], method="spearman")
        assert ranks > 0.95
    again = ensemble.score_rows(restless[400:])
    np.testing.assert_array_equal(again["score"], before["score"])
    total = own.attribute(restless).total
    np.testing.assert_allclose(total, own.score_rows(restless)["score"], atol=1e-9, rtol=0)
    with pytest.raises(DataError, match="too few"):
        ensemble.for_meter(rows[:5])
    with pytest.raises(ModelError, match="not fitted"):
        AnomalyEnsemble().for_meter(rows)
