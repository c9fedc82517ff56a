"""What an alarm is worth: bounds and edge cases of the figures, and agreement with the authors' own program."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from smartgrid_ai.evaluate.detection import (
    anomaly_metrics,
    area_metrics,
    average_precision,
    best_f1_with_labels,
    detector_metrics,
    event_metrics,
    events,
    vus_pr,
    vus_window,
)
from smartgrid_ai.readings import DataError

quick = settings(max_examples=60, deadline=None)


def drawn(seed, rows, faults, longest, digits=None):
    "Faults at random places and a score that knows them a little; `digits` rounds it, which makes ties."
    random = np.random.default_rng(seed)
    label = np.zeros(rows, dtype=bool)
    for start in random.integers(0, rows, faults):
        label[start : start + random.integers(1, longest + 1)] = True
    score = random.normal(size=rows) + 1.5 * label
    return label, score if digits is None else np.round(score, digits)


# Arguments of `drawn`, width of the window, and what TSB-AD 1.5 (numpy 2) answers to
#   span = (score - score.min()) / (np.ptp(score) + 1e-12)
#   TSB_AD.evaluation.basic_metrics.generate_curve(label.astype(int), span, window, "opt", 100)[-1]
REFERENCE = [
    ((0, 400, 3, 12), 24, 0.2649953311166474),
    ((1, 400, 30, 3), 24, 0.7243369538074539),
    ((2, 150, 1, 100), 60, 0.6333468792855673),
    ((3, 60, 2, 5), 100, 0.8429881331125368),
    ((4, 900, 6, 40, 0), 100, 0.5118985314728981),
    ((5, 300, 4, 8), 0, 0.24220138593606874),
    ((6, 300, 4, 8, 1), 1, 0.29616874684934036),
]


@pytest.mark.parametrize("series, window, volume", REFERENCE)
def test_the_volume_is_that_of_the_authors(series, window, volume):
    assert vus_pr(*drawn(*series), window) == pytest.approx(volume, abs=1e-12)


def test_the_volume_is_that_of_the_authors_where_their_program_is_installed():
    theirs = pytest.importorskip(
        "TSB_AD.evaluation.basic_metrics", reason="TSB-AD is not installed"
    )
    for seed in range(8):
        label, score = drawn(seed, 250, 1 + 3 * seed, 10, None if seed % 2 else 0)
        label[[0, -1]] = seed % 3 == 0
        span = (score - score.min()) / (np.ptp(score) + 1e-12)
        answer = theirs.generate_curve(label.astype(int), span, 5 * seed, "opt", 100)[-1]
        assert vus_pr(label, score, 5 * seed) == pytest.approx(answer, abs=1e-12)


@quick
@given(st.integers(0, 10_000), st.integers(2, 120), st.integers(0, 40), st.floats(0.1, 100))
def test_the_volume_stays_in_its_bounds_and_sees_only_ranks(seed, rows, window, factor):
    label, score = drawn(seed, rows, 2, 9, 1)
    volume = vus_pr(label, score, window)
    assert np.isnan(volume) == label.all()
    if not label.all():
        assert -1e-12 <= volume <= 1 + 1e-12
        assert vus_pr(label, factor * score - 7, window) == pytest.approx(volume)


@pytest.mark.parametrize("label", [np.zeros(9), np.ones(9), np.zeros(1), np.ones(1), np.zeros(0)])
def test_without_both_classes_there_is_no_area(label):
    score = np.arange(float(len(label)))
    areas = [measure(label, score) for measure in (vus_pr, average_precision, best_f1_with_labels)]
    assert np.isnan(areas).all() and np.isnan(list(area_metrics(label, score).values())).all()


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_one_score_that_is_no_number_leaves_no_area_and_hides_no_series(strange):
    label, score = drawn(0, 100, 3, 5)
    label[[3, 60]], score[7] = True, strange
    names = np.repeat(["a", "b"], 50)
    assert np.isnan([vus_pr(label, score), best_f1_with_labels(label, score)]).all()
    assert np.isnan(area_metrics(label, score, names)["auc_pr"])


def test_a_constant_score_is_worth_the_base_rate():
    label = np.arange(200) % 20 == 0
    assert average_precision(label, np.ones(200)) == pytest.approx(0.05)
    assert vus_pr(label, np.ones(200), 0) == pytest.approx(0.05)
    assert best_f1_with_labels(label, np.ones(200)) == pytest.approx(2 * 0.05 / 1.05)


def test_areas_are_means_over_the_series_that_have_both_classes():
    label, score = drawn(0, 300, 6, 9)
    names = np.repeat(["a", "b", "c"], 100)
    label[:100], label[200:] = True, np.arange(100) < 5
    each = [(vus_pr(label[p], score[p], 12), average_precision(label[p], score[p])) for p in (slice(100, 200), slice(200, 300))]  # fmt: skip
    out = area_metrics(label, score, names, 12)
    assert (out["vus_pr"], out["auc_pr"]) == pytest.approx(tuple(np.mean(each, axis=0)))
    assert out["auc_pr"] != pytest.approx(average_precision(label, score))


def test_unequal_lengths_are_refused():
    with pytest.raises(DataError, match="3 labels and 2 scores"):
        vus_pr(np.ones(3), np.ones(2))
    with pytest.raises(DataError, match="one of each per row"):
        anomaly_metrics(np.ones(3), np.ones(2))


def hours(count):
    return pd.date_range("2024-01-01", periods=count, freq="h", tz="UTC")


def test_delay_counts_from_the_start_of_each_found_fault():
    label, alarm = np.zeros((2, 60), dtype=bool)
    label[10:20] = label[30:34] = label[50:52] = True
    alarm[[16, 17, 29, 30]] = True
    out = event_metrics(label, alarm, timestamp=hours(60))
    assert out["event_recall"] == pytest.approx(2 / 3) and out["event_precision"] == 1
    assert (out["delay_median"], out["delay_mean"]) == (3, 3)
    assert out["false_alarms_per_month"] == 0
    minutes = pd.date_range("2024-01-01", periods=60, freq="min")
    assert event_metrics(label, alarm, timestamp=minutes)["delay_median"] == pytest.approx(3 / 60)


def test_false_alarms_are_counted_once_per_run_and_per_meter_month():
    alarm = np.zeros(2 * 24 * 61, dtype=bool)
    alarm[[100, 101, 102, 24 * 61 - 1, 24 * 61]] = True
    names, time = np.repeat(["a", "b"], 24 * 61), np.tile(hours(24 * 61), 2)
    out = event_metrics(np.zeros_like(alarm), alarm, names, time)
    assert out["false_alarms_per_month"] == pytest.approx(3 / (2 * (61 - 1 / 24) / 30.44))
    assert out["event_precision"] == 0 and np.isnan([out["event_recall"], out["event_f1"]]).all()


def test_a_single_row_has_no_month_and_a_silent_detector_no_delay():
    one = event_metrics([True], [True], ["a"], hours(1))
    assert (one["event_recall"], one["event_f1"], one["delay_mean"]) == (1, 1, 0)
    assert np.isnan(one["false_alarms_per_month"])
    silent = event_metrics([False, True], [False, False], timestamp=hours(2))
    assert silent["event_f1"] == 0 and np.isnan(silent["delay_median"])
    assert np.isnan(silent["event_precision"]) and silent["false_alarms_per_month"] == 0
    assert anomaly_metrics([True], [False])["missed_alarm_rate"] == 1


flags = st.integers(1, 80).flatmap(lambda n: st.tuples(arrays(bool, n), arrays(bool, n)))


@quick
@given(flags)
def test_alarm_rates_stay_in_their_bounds_and_f1_lies_between_precision_and_recall(pair):
    label, alarm = pair
    out = anomaly_metrics(label, alarm, alarm.astype(float))
    for name in set(out) - {"rows", "delay_median", "delay_mean", "false_alarms_per_month"}:
        assert np.isnan(out[name]) or 0 <= out[name] <= 1 + 1e-12
    if not np.isnan(out["precision"]) and not np.isnan(out["recall"]):
        assert (
            min(out["precision"], out["recall"]) - 1e-12
            <= out["f1"]
            <= max(out["precision"], out["recall"]) + 1e-12
        )
        assert out["event_recall"] >= (out["recall"] == 1)


@quick
@given(arrays(bool, st.integers(0, 80)))
def test_events_rebuild_the_flags(marks):
    again = np.zeros(len(marks), dtype=bool)
    for first, last in events(marks):
        assert last > first
        again[first:last] = True
    assert (again == marks).all()


def test_flagging_everything_has_the_base_rate_as_precision():
    label = np.arange(200) % 20 == 0
    out = anomaly_metrics(label, np.ones(200, dtype=bool), np.zeros(200))
    assert out["precision"] == out["auc_pr"] == out["base_rate"] == 0.05
    assert out["recall"] == out["false_alarm_rate"] == 1


def test_without_anomalies_there_is_no_recall_and_no_area():
    out = anomaly_metrics(np.zeros(9, dtype=bool), np.zeros(9, dtype=bool), np.arange(9.0))
    assert np.isnan(out["recall"]) and np.isnan(out["auc_pr"]) and np.isnan(out["precision"])
    assert out["false_alarm_rate"] == 0


def test_detectors_are_judged_on_the_labelled_rows_only():
    time = hours(50)
    label = np.arange(50) % 10 == 0
    labels = pd.DataFrame({"series": "a", "timestamp": time, "label": label})
    good = labels.drop(columns="label").assign(model="good", score=label + 0.0, alarm=label)
    poor = good.assign(model="poor", score=1.0 - label, alarm=~label)
    table = detector_metrics(pd.concat([poor, good]), labels.iloc[:30])
    assert table["model"].tolist() == ["good", "poor"]
    assert (table["rows"] == 30).all() and table["f1"].tolist() == [1, 0]
    with pytest.raises(DataError, match="share no row"):
        detector_metrics(good.assign(series="b"), labels)


def test_an_hour_that_a_wall_clock_shows_twice_is_judged_twice():
    time = pd.to_datetime(["2024-10-27 01:00", "2024-10-27 02:00", "2024-10-27 02:00"])
    labels = pd.DataFrame({"series": "a", "timestamp": time, "label": [0, 0, 1]})
    scores = labels.drop(columns="label").assign(model="m", score=[0.0, 0.1, 0.9], alarm=False)
    table = detector_metrics(scores, labels)
    assert table["rows"][0] == 3 and table["auc_pr"][0] == 1


def test_one_row_per_series_when_asked_and_a_width_that_suits_the_step():
    time = pd.date_range("2024-01-01", periods=200, freq="5min")
    label, score = drawn(0, 400, 8, 9)
    labels = pd.DataFrame({"series": np.repeat(["a", "b"], 200), "timestamp": np.tile(time, 2), "label": label})  # fmt: skip
    scores = labels.drop(columns="label").assign(model="m", score=score, alarm=score > 2)
    assert vus_window(labels) == 100 and vus_window(labels.iloc[::20]) == 24
    each = detector_metrics(scores, labels, by=("model", "series"))
    assert each["vus_pr"].mean() == pytest.approx(detector_metrics(scores, labels)["vus_pr"][0])
    assert each.set_index("series")["auc_pr"]["b"] == pytest.approx(average_precision(label[200:], score[200:]))  # fmt: skip


def test_the_table_agrees_with_the_scoring_script(shared_data, tmp_path, monkeypatch):
    script = shared_data.parent / "score" / "score_anomaly.py"
    if not script.exists():
        pytest.skip(f"{script.name} is not beside the shared data")
    spec = importlib.util.spec_from_file_location("score_anomaly", script)
    score_anomaly = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(score_anomaly)
    label, score = drawn(0, 900, 15, 9)
    label[600:] = False
    labels = pd.DataFrame({"series": np.repeat(["a", "b", "c"], 300), "timestamp": np.tile(hours(300).tz_localize(None), 3), "label": label.astype(int), "split": "test"})  # fmt: skip
    labels.to_parquet(tmp_path / "lead.parquet")
    scores = labels[["series", "timestamp"]].assign(model="m", score=score, alarm=score > 2)
    scores.to_parquet(tmp_path / "scores.parquet")
    words = ["score", "lead", str(tmp_path / "scores.parquet"), "--data", str(tmp_path), "--json", str(tmp_path / "out.json")]  # fmt: skip
    monkeypatch.setattr("sys.argv", words)
    assert score_anomaly.main() == 0
    theirs, ours = pd.read_json(tmp_path / "out.json").iloc[0], detector_metrics(scores, labels).iloc[0]  # fmt: skip
    same = {"AUC-PR": "auc_pr", "base rate": "base_rate", "F1": "f1", "event recall": "event_recall", "bestF1 (labels)": "best_f1_with_labels", "rows": "rows", "false events per series-month": "false_alarms_per_month"}  # fmt: skip
    for name, column in same.items():
        assert ours[column] == pytest.approx(theirs[name], abs=1e-9), name
    for name, column in {"FAR%": "false_alarm_rate", "MAR%": "missed_alarm_rate"}.items():
        assert 100 * ours[column] == pytest.approx(theirs[name], abs=1e-9), name
    if pd.notna(theirs["VUS-PR"]):
        assert ours["vus_pr"] == pytest.approx(theirs["VUS-PR"], abs=1e-9)
