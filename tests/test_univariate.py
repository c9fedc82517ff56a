"""Series of one channel that are no hourly loads."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_ai.anomaly.detect import detect
from smartgrid_ai.anomaly.novelty import (
    LOUDEST,
    compressed,
    fading_peak,
    middle_and_range,
    novelty,
)
from smartgrid_ai.anomaly.univariate import (
    both_memories,
    trailing_quantiles,
    univariate_scores,
)
from smartgrid_ai.readings import DataError

DAY = 288  # rows of five minutes


def machine(count: int = 1500, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    rhythm = 5 * np.sin(np.arange(count) * 2 * np.pi / DAY)
    return 60 + rhythm + random.normal(0, 0.6, count)


def signal(values: np.ndarray, train: int = 2 * DAY) -> SimpleNamespace:
    return SimpleNamespace(values=values[:, None], train=np.arange(len(values)) < train)


def scores(values: np.ndarray, train: int = 2 * DAY) -> np.ndarray:
    return univariate_scores(signal(values, train))["score"].to_numpy()


@pytest.fixture(scope="module")
def usual() -> np.ndarray:
    return scores(machine())


def test_one_row_each_and_few_alarms_without_faults(usual):
    judged = univariate_scores(signal(machine()))
    assert list(judged) == ["surprise", "score", "alarm", "because"] and len(judged) == 1500
    assert judged["score"].between(0, 1).all() and (judged["surprise"] >= 0).all()
    assert (judged["alarm"] == (judged["score"] > 0.5)).all()
    assert judged["alarm"][2 * DAY :].mean() < 0.01


@settings(max_examples=12, deadline=None)
@given(
    now=st.integers(600, 1499),
    factor=st.floats(-30, 30),
    hole=st.booleans(),
)
def test_nothing_looks_ahead(usual, now, factor, hole):
    values = machine()
    values[now:] = values[now:] * factor
    if hole:
        values[now::3] = np.nan
    np.testing.assert_allclose(scores(values)[:now], usual[:now], atol=1e-12)


@pytest.mark.parametrize("cut", [601, 777, 1250])
def test_a_row_is_judged_alike_when_it_is_the_last(usual, cut):
    np.testing.assert_allclose(scores(machine()[:cut]), usual[:cut], atol=1e-12)


@settings(max_examples=8, deadline=None)
@given(factor=st.sampled_from([1e-6, 0.5, 1.8, 1024.0, 1e9]), offset=st.floats(-50, 50))
def test_neither_unit_nor_zero_point_matter(usual, factor, offset):
    np.testing.assert_allclose(scores((machine() + offset) * factor), usual, atol=1e-5)


def plant(kind: str) -> tuple[np.ndarray, slice]:
    values, where = machine(), slice(1000, 1100)
    random = np.random.default_rng(5)
    if kind == "spike":
        where = slice(1000, 1003)
        values[where] += 12
    elif kind == "level shift":
        values[where] += 15
    elif kind == "noise":
        values[where] += random.normal(0, 5, 100)
    elif kind == "shape":
        values[where] += 5 * np.sin(np.arange(100) * np.pi / 3)
    elif kind == "drop-out":
        values[where] = 0.0
    elif kind == "stuck":
        where = slice(1000, 1200)
        values[where] = values[1000]
    return values, where


@pytest.mark.parametrize("kind", ["spike", "level shift", "noise", "shape", "drop-out", "stuck"])
def test_planted_fault_is_found(usual, kind):
    values, where = plant(kind)
    judged = scores(values)
    assert judged[where].max() > 0.5
    assert np.argmax(judged[2 * DAY :]) + 2 * DAY in range(where.start, where.stop + 80)
    assert judged[where].mean() > usual[where].mean()


def repeated(judged: pd.DataFrame) -> pd.Series:
    return judged["because"].str.contains("repeated")


def test_every_alarm_says_what_was_far_from_the_usual():
    values = machine()
    values[1000:1012] += np.r_[8, 14, np.full(10, 9.0)]
    values[1300:1400] -= 10 * np.sin(np.arange(100) * 2 * np.pi / 20)
    judged = univariate_scores(signal(values))
    assert (judged["because"].ne("") == judged["alarm"]).all()
    assert f"{values[1001]:.4g}, where nine of ten that were learned" in judged["because"][1010]
    calm = np.where(np.arange(1500) > 900, 60 + 0.01 * machine(), machine())
    inside = univariate_scores(signal(calm))[900:]
    told = inside["because"][inside["alarm"]]
    assert len(told) and told.str.contains("is usual .* the course it is part of is not").all()


def test_an_alarm_ends_with_its_incident_though_the_score_fades():
    values = machine(3000)
    values[2000:2020] += 15
    judged = univariate_scores(signal(values))
    after = judged[2020:]
    assert judged["alarm"][2000:2020].any() and after["alarm"].sum() < 90
    faded = after[~after["alarm"]]["score"]
    assert faded.iloc[0] == 0.5 and faded.iloc[-1] < 0.4


def test_a_value_that_sticks_is_told(usual):
    values = machine()
    values[1200:1260] = values[1200]
    judged = univariate_scores(signal(values))
    assert judged["alarm"][1211:1260].all() and not repeated(judged)[:1211].any()
    assert f"{values[1200]:.6g} has been repeated 11 times" in judged["because"][1211]
    pd.testing.assert_series_equal(judged["score"][:1200], pd.Series(usual[:1200], name="score"))
    coarse = values.round()
    assert not repeated(univariate_scores(signal(coarse)))[:1200].any()


def test_a_fault_is_still_strange_when_it_comes_back():
    values = machine(3000)
    for start in (900, 1400, 1900, 2400):
        values[start : start + 20] += 12
    judged = scores(values)
    assert min(judged[start : start + 20].max() for start in (900, 1400, 1900, 2400)) > 0.5


def test_a_new_level_becomes_usual():
    values = machine(6000)
    values[1500:] += 12
    judged = scores(values)
    assert judged[1500:1600].max() > 0.5
    assert judged[5500:].mean() < judged[1500:1700].mean() - 0.15


def test_same_seed_and_any_seed_same_scores():
    first = univariate_scores(signal(machine()), seed=0)
    pd.testing.assert_frame_equal(first, univariate_scores(signal(machine()), seed=0))
    pd.testing.assert_frame_equal(first, univariate_scores(signal(machine()), seed=7))


@pytest.mark.parametrize("level", [0.0, 5.0, -1e9])
def test_constant_series_are_calm_until_they_change(level):
    values = np.full(800, level)
    assert not univariate_scores(signal(values))["alarm"].any()
    values[700:] = level + 1 + abs(level)
    judged = univariate_scores(signal(values))
    assert judged["alarm"][700] and not judged["alarm"][:700].any()
    assert not repeated(judged).any()


def test_missing_values_carry_the_judgement_before_them(usual):
    values = machine()
    values[1200:1210] = [np.nan, np.inf, -np.inf, *[np.nan] * 7]
    values[:5] = np.nan
    judged = scores(values)
    assert np.isfinite(judged).all() and (judged[:5] == 0).all()
    assert (judged[1200:1210] == judged[1199]).all()
    judged = scores(np.r_[machine()[:700], np.full(50, np.nan)])
    np.testing.assert_allclose(judged[:700], usual[:700], atol=1e-12)


def test_few_rows_are_judged_and_too_few_are_refused():
    values = np.random.default_rng(0).normal(20, 1, 120)
    values[110] += 50
    judged = scores(values, train=50)
    assert np.isfinite(judged).all() and np.argmax(judged) in range(110, 120)
    with pytest.raises(DataError, match="49 training rows"):
        scores(values, train=49)
    with pytest.raises(DataError, match="one channel"):
        univariate_scores(SimpleNamespace(values=np.ones((99, 2)), train=np.ones(99, bool)))


def test_irregular_steps_and_repeated_times_are_scored():
    random = np.random.default_rng(3)
    minutes = np.cumsum(random.integers(0, 30, 900))
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(minutes, unit="min")
    values = machine(900)
    values[700:704] += 20
    judged = detect(pd.DataFrame({"timestamp": times, "celsius": values}), ("default",))
    assert len(judged) == 630 and np.isfinite(judged["score"]).all()
    assert judged["alarm"].iloc[430:434].any()


def test_detect_uses_it_for_a_single_channel():
    times = pd.date_range("2024-01-01", periods=1500, freq="5min")
    table = pd.DataFrame({"series": "a", "timestamp": times, "celsius": machine()})
    table["split"] = np.where(np.arange(1500) < 2 * DAY, "train", "test")
    judged = detect(table, ("default",))
    np.testing.assert_allclose(judged["score"], scores(machine())[2 * DAY :])


def test_quantiles_know_only_the_past_and_forget():
    stream = np.arange(10_000.0)[None]
    train = np.arange(10_000) < 150
    median = trailing_quantiles(stream, (0.5,), train, gap=100)[0, 0]
    assert (median[:200] == np.median(stream[0, :150])).all()
    assert (median[200:] < np.arange(200, 10_000) - 100).all()
    assert median[-1] == pytest.approx(9950 - 100 - 2000, abs=1)


def test_novelty_is_the_distance_to_the_three_nearest_earlier_patterns():
    value = np.random.default_rng(0).normal(size=130)
    rows = np.array([value[t - 7 : t + 1] for t in range(7, 130)])
    level_and_shape = novelty(value, scale=1, gap=20)
    assert (level_and_shape[:, :20] == 0).all()
    for kind, centred in enumerate((rows, rows - rows.mean(axis=1, keepdims=True))):
        past = centred[: 129 - 20 - 7 + 1]
        near = np.sort(np.sqrt(((past - centred[-1]) ** 2).mean(axis=1)))[:3].mean()
        assert level_and_shape[kind, 129] <= near + 1e-9  # the first rows have patterns, too
        assert level_and_shape[kind, 129] > 0.5 * near


def test_one_question_cannot_shout_down_the_others():
    random = np.random.default_rng(0)
    answers = random.exponential(size=(11, 900))
    answers[0, 800] = 1e12
    train = np.arange(900) < 400
    together = both_memories(answers, train, 100)
    assert together[800] <= LOUDEST and together[800] == together[400:].max()


@given(st.lists(st.floats(0, 20), min_size=1, max_size=60), st.sampled_from([20, 80]))
def test_fading_peak_is_its_recursion(surprises, half_life):
    held, expected = 0.0, []
    for surprise in surprises:
        held = max(surprise, held * 0.5 ** (1 / half_life))
        expected.append(held)
    np.testing.assert_allclose(fading_peak(np.array(surprises), half_life), expected, atol=1e-9)


def test_compression_keeps_the_order():
    values = np.sort(np.random.default_rng(0).lognormal(0, 3, 300))
    assert (np.diff(compressed(values, *middle_and_range(values[:100]))) > 0).all()


@pytest.mark.real_data
def test_default_ranks_incidents_above_the_distance_to_the_nearest_neighbours(shared_data):
    from sklearn.metrics import average_precision_score
    from sklearn.neighbors import NearestNeighbors

    table = pd.read_parquet(shared_data / "anomaly" / "nab.parquet")
    table = table[table["series"].isin(table["series"].unique()[::4])]
    ours, theirs, false = [], [], []
    for _, own in table.groupby("series", sort=False):
        value, train = own["value"].to_numpy(), (own["split"] == "train").to_numpy()
        label = own["label"].to_numpy()[~train]
        rows = np.lib.stride_tricks.sliding_window_view(np.r_[np.full(31, value[0]), value], 32)
        near = NearestNeighbors(n_neighbors=5).fit(rows[train]).kneighbors(rows[~train])[0][:, -1]
        judged = univariate_scores(SimpleNamespace(values=value[:, None], train=train))[~train]
        if 0 < label.sum() < len(label):
            ours.append(average_precision_score(label, judged["score"]))
            theirs.append(average_precision_score(label, near))
        false.append(judged["alarm"][label == 0].mean())
    assert np.mean(ours) > 1.1 * np.mean(theirs) and np.mean(false) < 0.03
