"""A few labels move alarm lines: the order of scores stays, contradictions are refused, duration is kept."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_ai.anomaly.alarm import lasting
from smartgrid_ai.anomaly.calibration import surprise_of, unit_score
from smartgrid_ai.anomaly.judgements import SHIFT, USUAL_LINE, calibrate_scores
from smartgrid_ai.errors import DataError


def scores(surprise: np.ndarray, model: str = "default") -> pd.DataFrame:
    hours = pd.date_range("2024-01-01", periods=len(surprise), freq="h")
    table = pd.DataFrame({"model": model, "series": "a", "timestamp": hours, "score": unit_score(surprise)})  # fmt: skip
    return table.assign(alarm=table["score"] > 0.5)


def example(seed: int, shift: float) -> tuple[pd.DataFrame, np.ndarray]:
    "Usual rows, some strange ones, and labels of a few of both."
    random = np.random.default_rng(seed)
    surprise = random.exponential(1.5, 300)
    surprise[::30] += shift
    label = np.full(300, np.nan)
    label[::30], label[np.argsort(np.where(np.arange(300) % 30 == 0, -1, surprise))[-8:]] = 1, 0
    return scores(surprise), label


@settings(max_examples=25)
@given(st.floats(0, 0.999), st.floats(0.001, 0.3))
def test_a_surprise_comes_back_from_its_score(score, share):
    assert unit_score(surprise_of(score, share), share) == pytest.approx(score, abs=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 200), st.floats(10, 40))
def test_the_order_of_scores_stays_and_the_alarm_is_at_one_half(seed, shift):
    table, label = example(seed, shift)
    moved = calibrate_scores(table, label)
    assert (np.argsort(moved["score"], kind="stable") == np.argsort(table["score"], kind="stable")).all()  # fmt: skip
    assert moved["score"].between(0, 1).all() and (moved["alarm"] == (moved["score"] > 0.5)).all()
    others = [name for name in table if name not in ("score", "alarm")]
    pd.testing.assert_frame_equal(moved[others], table[others], check_flags=False)


def test_the_line_lies_between_what_was_called_usual_and_what_was_called_an_anomaly():
    table, label = example(1, 25)
    label[(label == 0) & (surprise_of(table["score"].to_numpy()) > USUAL_LINE + SHIFT)] = np.nan
    assert table["alarm"][label == 0].any()
    moved = calibrate_scores(table, label)
    assert moved["alarm"][label == 1].all() and not moved["alarm"][label == 0].any()


def settling(seed: int, quiet: int) -> tuple[pd.DataFrame, np.ndarray]:
    "Real alarms, and rightly as usual the hours after them, which look stranger still."
    random = np.random.default_rng(seed)
    real, after = 5 + random.exponential(8, 10), np.exp(random.normal(3, 1, 10)) + 5
    usual = random.exponential(1, quiet)
    unseen = random.exponential(6, 200)
    surprise = np.r_[real, after, usual, unseen]
    return scores(surprise), np.r_[np.ones(10), np.zeros(10 + quiet), np.full(200, np.nan)]


@pytest.mark.parametrize("quiet", [0, 5, 20])
@pytest.mark.parametrize("seed", range(10))
def test_honest_labels_never_silence_the_detector(seed, quiet):
    table, label = settling(seed, quiet)
    moved = calibrate_scores(table, label)
    assert moved["alarm"][label == 1].sum() >= table["alarm"][label == 1].sum() / 2
    line = surprise_of(table["score"].to_numpy())[moved["alarm"]].min()
    assert line > USUAL_LINE - SHIFT and moved["alarm"].any()
    tenfold = surprise_of(table["score"].to_numpy()) > USUAL_LINE + SHIFT
    assert moved["alarm"][tenfold].all()
    cost = [
        2 * (~alarm & (label == 1)).sum() + (alarm & (label == 0)).sum()
        for alarm in (table["alarm"], moved["alarm"])
    ]
    assert cost[1] <= cost[0]


def test_labels_that_agree_with_the_line_leave_it_and_the_counts_are_told():
    table = scores(np.r_[np.full(5, 9.0), np.full(4, 4.0), np.full(3, 4.8)])
    label = np.r_[np.ones(5), np.zeros(4), np.full(3, np.nan)]
    kept = calibrate_scores(table, label)
    pd.testing.assert_frame_equal(kept, table, check_flags=False)
    (note,) = kept.attrs["notes"]
    assert "default keeps its alarm line at a surprise of 4.6" in note
    label[-3:] = 0
    (note,) = calibrate_scores(table, label).attrs["notes"]
    assert note.endswith(
        "Of 12 labels used, 5 of 5 anomalies raise an alarm, before 5; 0 of 7 usual rows, before 3"
    )


def test_each_model_has_its_own_line_and_one_that_is_contradicted_keeps_its_own():
    table, label = example(2, 20)
    upside_down = scores(surprise_of(table["score"].max() - table["score"].to_numpy()), "lof")
    both = pd.concat([table, upside_down], ignore_index=True)
    moved = calibrate_scores(both, np.r_[label, label])
    kept = both["model"] == "lof"
    assert (moved["score"][kept] == both["score"][kept]).all()
    assert (moved["score"][~kept] != both["score"][~kept]).any()
    first, second = moved.attrs["notes"]
    assert first.startswith("default: alarm from") and second.startswith("lof keeps its alarm line")
    with pytest.raises(DataError, match=r"lof keeps its alarm line: .* look no stranger"):
        calibrate_scores(upside_down, label)


@pytest.mark.parametrize("anomalies, usual", [(2, 8), (8, 2), (0, 0)])
def test_too_few_labels_are_counted(anomalies, usual):
    table, label = example(3, 20)
    label = np.where(label == 1, np.where(np.cumsum(label == 1) <= anomalies, 1, np.nan), label)
    label = np.where(label == 0, np.where(np.cumsum(label == 0) <= usual, 0, np.nan), label)
    with pytest.raises(DataError, match=f"{anomalies} rows labelled 1 .* {usual} labelled 0 .* 3 or more"):  # fmt: skip
        calibrate_scores(table, label)


def test_lasting_alarms_stay_lasting_whatever_the_order_of_rows():
    table, label = example(4, 20)
    table.loc[61, "score"] = 0.9
    moved = calibrate_scores(table, label)
    kept = calibrate_scores(table, label, only_lasting=True)
    assert (
        kept["alarm"].tolist() == lasting(moved["alarm"].to_numpy()).tolist()
        and kept["alarm"].any()
    )
    turned = calibrate_scores(table[::-1].reset_index(drop=True), label[::-1], only_lasting=True)
    assert turned["alarm"].tolist() == kept["alarm"].tolist()[::-1]
