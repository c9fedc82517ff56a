"""Machines under watch: what is usual is learned without labels, and nothing looks ahead."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_ai.anomaly.assets import (
    AssetDetector,
    asset_contributions,
    asset_scores,
    asset_sentence,
    sensor_group,
    time_to_alarm,
)
from smartgrid_ai.anomaly.assets_files import FILES, load_assets, save_assets
from smartgrid_ai.anomaly.assets_stream import AssetStream
from smartgrid_ai.anomaly.assets_textbook import TextbookMonitor
from smartgrid_ai.anomaly.course import LEAST_ROWS, Course, set_apart
from smartgrid_ai.anomaly.drift import LevelDrift, running_mean
from smartgrid_ai.anomaly.memory import opened_memory, write_memory
from smartgrid_ai.anomaly.moments import moment_rows
from smartgrid_ai.anomaly.monitor import AssetMonitor
from smartgrid_ai.anomaly.quadratic import QuadraticForm, shrunk_covariance
from smartgrid_ai.anomaly.regimes import Regimes, checked_states
from smartgrid_ai.anomaly.release import Release, above_line
from smartgrid_ai.anomaly.series import read_series, signals
from smartgrid_ai.anomaly.stillness import Stillness
from smartgrid_ai.data.equipment import KINDS, SENSORS, SLOW, Fault, simulate_equipment
from smartgrid_ai.readings import DataError, ModelError

NAMES = list(SENSORS)


def machine(rows: int = 800, seed: int = 0) -> np.ndarray:
    "(rows, 3): two channels that know each other and one that does not."
    random = np.random.default_rng(seed)
    common = np.sin(np.arange(rows) / 15)
    both = common[:, None] + random.normal(0, 0.1, (rows, 2))
    return np.column_stack([both, random.normal(5, 1, rows)])


@pytest.fixture(scope="module")
def pumps() -> pd.DataFrame:
    "Two pumps of twelve days, one with a leak; half-hourly."
    leak = Fault("leak", onset=200, hours=80, size=0.9)
    parts = [
        simulate_equipment("pump", faults, days=12, minutes=30, seed=seed)
        for seed, faults in ((1, ()), (2, (leak,)))
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def split(pumps) -> tuple[pd.DataFrame, pd.DataFrame]:
    early = pumps["timestamp"] < pumps["timestamp"].iloc[0] + pd.Timedelta(days=7)
    return pumps[early], pumps[~early].reset_index(drop=True)


@pytest.fixture(scope="module")
def detector(split) -> AssetDetector:
    return AssetDetector().fit(split[0])


# the distance


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_parts_sum_to_the_distance_and_none_is_negative(seed, channels):
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(channels, channels)) + np.eye(channels)
    form = QuadraticForm(mixing @ mixing.T + 1e-3 * np.eye(channels))
    rows = random.normal(size=(5, channels))
    parts = form.parts(rows)
    textbook = np.einsum("ij,jk,ik->i", rows, np.linalg.inv(form.covariance), rows)
    np.testing.assert_allclose(parts.sum(axis=1), textbook, rtol=1e-6)
    assert (parts >= 0).all()


def test_missing_channels_use_their_own_covariance():
    form = QuadraticForm(np.array([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 4.0]]))
    parts = form.parts(np.array([[1.0, np.nan, 2.0], [np.nan] * 3]))
    np.testing.assert_allclose(parts[0], np.array([0.5, 0, 1]) * 3 / 2)
    assert not parts[1].any()


def test_few_whole_rows_still_make_a_covariance():
    rows = np.where(np.eye(3, dtype=bool)[np.arange(60) % 3], np.nan, 1.0)
    assert np.linalg.eigvalsh(shrunk_covariance(rows)).min() > 0


# states, means, lines


def test_states_are_checked():
    assert list(checked_states(np.array(["Normal ", None, np.nan], dtype=object), 3)) == [
        "normal",
        "",
        "",
    ]
    with pytest.raises(DataError, match=r"row 2: no operating state 'asleep'"):
        checked_states(np.array(["normal", "asleep"]), 2)


def test_rare_states_are_pooled_and_say_why():
    states = np.array(["normal"] * 100 + ["tap_change"] * 5)
    regimes = Regimes().fit(np.random.default_rng(0).normal(size=(105, 2)), states)
    assert regimes.name("tap_change") == "" and "5 rows" in regimes.reasons["tap_change"]
    assert regimes.name("normal") == "normal"


def test_running_mean_is_the_same_row_by_row_with_gaps():
    random = np.random.default_rng(0)
    values = np.where(random.random((50, 3)) < 0.4, np.nan, random.normal(size=(50, 3)))
    whole, last = running_mean(values, np.ones(3), 7), np.ones(3)
    rows = [running_mean(row[None], last, 7)[0].copy() for row in values]
    np.testing.assert_allclose(whole, rows, atol=1e-12)


def test_alarm_is_exactly_above_the_line():
    random = np.random.default_rng(0)
    surprise = random.exponential(4, size=2000)
    line = Release(4.6, 200).lines(surprise, np.zeros(2))
    assert ((above_line(surprise, line, 4.6) > 4.6) == (surprise > line)).all()
    still = Release(4.6, 200, share=0.0).lines(surprise, np.zeros(2))
    assert (still == 4.6).all()
    np.testing.assert_allclose(above_line(surprise, still, 4.6), surprise)


def test_few_blocks_claim_less_than_many():
    random = np.random.default_rng(0)
    short, long = (LevelDrift().fit(random.normal(size=(n, 2))) for n in (400, 8000))
    far = np.array([[1.0, 1.0]])
    age = np.zeros(1)
    assert short.surprise(short.parts(far, age)) < long.surprise(long.parts(far, age))


# one machine


def test_sound_machine_raises_few_alarms_and_broken_relation_many():
    values = machine(3000)
    values[2500:, 1] = np.random.default_rng(1).permutation(values[2500:, 1])
    monitor = AssetMonitor().fit(values[:1500])
    judged = monitor.advance(monitor.fresh(), values[1500:])
    assert judged.alarm[:1000].mean() < 0.02 and judged.alarm[1050:].mean() > 0.9
    assert set(np.unique(judged.share[1050:].argmax(axis=1))) <= {0, 1}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 299), max_size=6), st.booleans())
def test_any_cutting_gives_the_same_scores(cuts, with_states):
    values = machine(700)
    values[500:540, 2] = np.nan
    values[550:552] = np.nan
    values[600:, 0] += 3
    states = np.full(700, "normal", dtype=object)
    states[[450, 451, 520]], states[570:590] = "tap_change", "maintenance"
    states = states if with_states else np.full(700, "", dtype=object)
    monitor = AssetMonitor().fit(values[:400], states[:400])
    whole = monitor.advance(monitor.fresh(), values[400:], states[400:])
    memory, edges, pieces = monitor.fresh(), sorted({0, 300, *cuts}), []
    for a, b in zip(edges[:-1], edges[1:]):
        pieces.append(monitor.advance(memory, values[400 + a : 400 + b], states[400 + a : 400 + b]))
    for name in ("score", "surprise", "share", "expected"):
        joined = np.concatenate([getattr(piece, name) for piece in pieces])
        np.testing.assert_allclose(joined, getattr(whole, name), atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 399), max_size=6))
def test_any_cutting_gives_the_same_courses(cuts):
    values, states = machine(1900), np.full(1900, "", dtype=object)
    values[1550:1580, 1], values[1600:1602] = np.nan, np.nan
    values[1700:1720, 0] = np.tile([1.0, -1.0], 10)
    states[1640:1660] = "maintenance"
    monitor = AssetMonitor().fit(values[:1500])
    whole = monitor.advance(monitor.fresh(), values[1500:], states[1500:])
    assert whole.opinions.shape == (400, 3) and whole.alarm[210:220].all()
    assert whole.opinions[210, 2] > np.log(100) and whole.share[210].argmax() == 0
    memory, pieces = monitor.fresh(), []
    for rows in np.split(np.arange(1500, 1900), sorted(set(cuts))):
        pieces.append(monitor.advance(memory, values[rows], states[rows]))
    joined = np.concatenate([piece.opinions for piece in pieces])
    np.testing.assert_allclose(joined, whole.opinions, atol=1e-9)


def test_a_course_like_none_before_is_named():
    values = machine(3000)
    saw = np.arange(3000) % 40 / 40 + np.random.default_rng(1).normal(0, 0.02, 3000)
    saw[2500:2560] = np.arange(60) % 25 / 25  # another pace, the same levels
    table = pd.DataFrame(np.column_stack([values, saw]), columns=["a", "b", "c", "tank_level"])
    table["timestamp"] = pd.date_range("2024-01-01", periods=3000, freq="1min")
    detector = AssetDetector(("a", "b", "c", "tank_level")).fit(table[:2000])
    judged = detector.score(table)
    told = judged["unlike"] & judged["alarm"]
    assert told[2000:2500].mean() < 0.02 and told[2510:2560].mean() > 0.5
    row = judged[told].loc[2510:].iloc[0]
    reading = table.loc[row.name, ["a", "b", "c", "tank_level"]].to_dict()
    sentence = asset_sentence(row, asset_contributions(reading, row, 3))
    assert "tank_level is" in sentence and "and its course like none before" in sentence
    stream, answer = AssetStream(detector), {}
    for reading in table.iloc[2000 : row.name + 1].drop(columns="timestamp").to_dict("records"):
        answer = stream.update("asset", reading)
    assert answer["unlike"] and answer["group"] == "hydraulic"
    assert "and its course like none before" in answer["explanation"]


def test_a_usual_course_does_not_hide_a_slow_fault():
    values = machine(3000)
    values[2000:, 2] += 4 * np.linspace(0, 1, 1000)
    monitor = AssetMonitor().fit(values[:1500])
    judged = monitor.advance(monitor.fresh(), values[1500:])
    two = judged.opinions[:, :2].mean(axis=1)
    assert (judged.surprise >= two - 1e-9).all() and judged.alarm[1200:].mean() > 0.9
    without = judged.opinions.mean(axis=1) <= two
    near, far = (judged.share[without & judged.alarm][:, n] for n in (0, 2))
    assert without.any() and (far > near).all()


def test_a_course_wants_enough_to_learn_from():
    values = machine(LEAST_ROWS + 300)
    values[:400, 1] = np.nan
    monitor = AssetMonitor().fit(values[:LEAST_ROWS])
    assert sorted(monitor.courses.courses) == [0, 2]
    assert not AssetMonitor().fit(values[: LEAST_ROWS - 1]).courses.courses
    judged = monitor.advance(monitor.fresh(), values[LEAST_ROWS:])
    assert np.isfinite(judged.score).all() and judged.alarm.mean() < 0.05


def test_the_distance_to_moments_is_that_of_the_fifth_nearest():
    from sklearn.neighbors import NearestNeighbors

    values = machine(1600)[:, 2]
    course = Course()
    course.fit(values[:1500], set_apart(1500))
    told = course._answers(
        np.r_[
            course.past,
            (course_value := np.arcsinh((values[1500:] - course.scales[0]) / course.scales[1])),
        ],
        len(course.past),
    )
    rows = moment_rows(np.r_[course.past, course_value]).to_numpy()[-100:]
    near = NearestNeighbors(n_neighbors=5).fit(course.kept)
    expected = near.kneighbors((rows - course.centre) / course.spread)[0][:, -1]
    np.testing.assert_allclose(told[2], expected, rtol=1e-9)


def test_scores_depend_on_no_later_row():
    values = machine(700)
    changed = values.copy()
    changed[600:] = changed[600:] * 9 - 4
    monitor = AssetMonitor().fit(values[:400])
    first, second = (monitor.advance(monitor.fresh(), v[400:]) for v in (values, changed))
    np.testing.assert_array_equal(first.score[:200], second.score[:200])
    assert not np.allclose(first.score[200:], second.score[200:])


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(-1e3, 1e3))
def test_units_do_not_matter(factor, shift):
    values = machine(500)
    other = values * factor + shift * factor
    scores = []
    for table in (values, other):
        monitor = AssetMonitor().fit(table[:300])
        scores.append(monitor.advance(monitor.fresh(), table[300:]).score)
    np.testing.assert_allclose(*scores, atol=1e-5)


def test_missing_and_constant_channels_are_tolerated():
    values = np.column_stack([machine(600), np.full(600, 7.0), np.full(600, np.nan)])
    values[450:, 0] = np.nan
    monitor = AssetMonitor().fit(values[:400])
    judged = monitor.advance(monitor.fresh(), values[400:])
    assert np.isfinite(judged.score).all() and judged.alarm.mean() < 0.05
    assert not judged.share[60:, 0].max() > 0.9 and not judged.share[:, 4].any()
    assert np.isnan(judged.expected[:, 4]).all()
    values[590:, 3] = 8.0
    again = monitor.advance(monitor.fresh(), values[400:])
    assert again.alarm[190:].all() and (again.share[190:].argmax(axis=1) == 3).all()


def test_rows_without_any_reading_keep_the_score():
    values = machine(600)
    values[500:510] = np.nan
    monitor = AssetMonitor().fit(values[:400])
    judged = monitor.advance(monitor.fresh(), values[400:])
    assert np.isfinite(judged.score).all() and not judged.alarm[100:110].any()


def test_maintenance_is_scored_without_alarm_and_leaves_no_trace():
    values, states = machine(700), np.full(700, "normal", dtype=object)
    disturbed, serviced = values.copy(), states.copy()
    disturbed[500:560] += 50
    serviced[500:560] = "maintenance"
    monitor = AssetMonitor().fit(values[:400], states[:400])
    judged = monitor.advance(monitor.fresh(), disturbed[400:], serviced[400:])
    assert (judged.score[110:140] > 0.5).all() and not judged.alarm.any()
    unmarked = monitor.advance(monitor.fresh(), disturbed[400:], states[400:])
    assert unmarked.alarm[110:160].all()


def test_transients_have_an_allowance_of_their_own():
    random = np.random.default_rng(0)
    values, states = machine(1200), np.full(1200, "normal", dtype=object)
    starts = np.arange(20, 1200, 20)
    states[starts] = "energising"
    values[starts, 2] += 80 + random.normal(0, 5, len(starts))
    monitor = AssetMonitor().fit(values[:800], states[:800])
    known = monitor.advance(monitor.fresh(), values[800:], states[800:])
    assert known.alarm.mean() < 0.03
    blind = monitor.advance(monitor.fresh(), values[800:], np.full(400, "normal"))
    assert blind.alarm.mean() > 0.3
    weak = values.copy()
    weak[starts[45:], 2] = 5.0
    assert monitor.advance(monitor.fresh(), weak[800:], states[800:]).alarm[150:].mean() > 0.2


def test_spike_is_an_alarm_and_soon_over():
    values = machine(800)
    values[600, 2] = 100
    monitor = AssetMonitor().fit(values[:400])
    alarm = monitor.advance(monitor.fresh(), values[400:]).alarm
    assert alarm[200] and not alarm[250:].any()


# Sensors that stick


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 39), max_size=5), st.integers(0, 1000))
def test_repeats_are_counted_alike_in_any_pieces(cuts, seed):
    random = np.random.default_rng(seed)
    values = random.choice([0.0, 1.0, 2.0, np.nan], (40, 3), p=[0.2, 0.4, 0.2, 0.2])
    states = random.choice(["normal", "tripped", ""], 40, p=[0.8, 0.1, 0.1])
    still = Stillness().fit(machine(100), np.full(100, ""))
    whole, memory = still.repeats(values, states, *still.nothing(3)), still.nothing(3)
    pieces = np.split(np.arange(40), sorted(set(cuts)))
    parts = [still.repeats(values[rows], states[rows], *memory) for rows in pieces]
    assert (np.vstack(parts) == whole).all()
    for channel in range(3):  # by hand, one reading after the other
        last, count = np.nan, 0
        for row in range(40):
            now = values[row, channel]
            if np.isfinite(now):
                again = now == last and now != 0 and states[row] != "tripped"
                last, count = now, count + 1 if again else 0
            assert whole[row, channel] == count


@pytest.mark.parametrize("channel", ["temperature", "pressure", "vibration"])
def test_a_sensor_that_sticks_is_named_within_the_hour(channel):
    stuck = Fault("stuck", onset=6 * 24 + 12, hours=6, channel=channel)
    table = simulate_equipment("pump", (stuck,), days=8, minutes=2, seed=3)
    train, later = table.iloc[: 4 * 720], table.iloc[4 * 720 :].reset_index(drop=True)
    detector = AssetDetector().fit(train)
    judged = detector.score(later)
    faulty = later["fault"].ne("").to_numpy()
    held = judged["repeats"].to_numpy() > 0
    assert held[faulty].mean() > 0.9 and not held[~faulty].any()
    assert (judged.loc[held, "channel"] == channel).all() and judged.loc[held, "alarm"].all()
    row = int(np.flatnonzero(held)[0])
    said = judged.loc[row].to_dict()
    sentence = asset_sentence(said, asset_contributions(later.loc[row].to_dict(), said, 3))
    assert (
        f": {channel} has repeated " in sentence
        and "for 11 readings; look at the sensor" in sentence
    )


def test_stillness_that_is_usual_is_no_fault():
    values = machine(900)
    values[:, 0] = values[:, 0].round(1)  # a coarse sensor repeats itself
    values[600:700, 1] = 0.0  # switched off
    opened = values[:450, 0].max()
    values[[200, 201], 0] = values[760:860, 0] = opened  # at the end of its range, as before
    values[:, 2] = np.where(
        np.arange(900) % 300 < 150, 5.0, values[:, 2]
    )  # at rest half of the time
    monitor = AssetMonitor().fit(values[:450])
    judged = monitor.advance(monitor.fresh(), values[450:])
    assert monitor.still.limit[2] == np.inf and np.isfinite(monitor.still.limit[:2]).all()
    assert not judged.repeats.any()


@pytest.mark.parametrize("level", [0.0, 5.0])
def test_a_set_point_that_moves_is_no_sensor_that_sticks(level):
    values = np.column_stack([machine(900), np.full(900, level)])
    values[600:, 3] = level + 2
    monitor = AssetMonitor().fit(values[:450])
    assert not monitor.advance(monitor.fresh(), values[450:]).repeats.any()


def test_what_a_sensor_said_before_a_service_does_not_count():
    values = machine(700)
    states = np.full(700, "normal", dtype=object)
    monitor = AssetMonitor().fit(values[:400], states[:400])
    values[450:470, 1], states[459:462] = values[450, 1], "maintenance"
    judged = monitor.advance(monitor.fresh(), values[400:], states[400:])
    assert not judged.repeats.any()


def test_too_little_to_learn_from_is_named():
    with pytest.raises(DataError, match="12 training rows"):
        AssetMonitor().fit(machine(12))
    with pytest.raises(DataError, match="0 training rows"):
        AssetMonitor().fit(np.full((100, 2), np.nan))
    monitor = AssetMonitor().fit(machine(100))
    with pytest.raises(DataError, match="3 channels are known"):
        monitor.advance(monitor.fresh(), np.zeros((4, 2)))


# tables of assets


def test_leak_is_found_and_blamed_on_the_hydraulics(detector, split):
    later = split[1]
    judged = detector.score(later)
    assert list(judged.index) == list(later.index)
    last = (later["asset_id"] == "pump-2") & (
        later["timestamp"] > later["timestamp"].max() - pd.Timedelta(days=1)
    )
    assert judged.loc[last, "alarm"].all()
    assert judged.loc[last, "group"].mode()[0] == "hydraulic"
    assert judged.loc[later["asset_id"] == "pump-1", "alarm"].mean() < 0.03
    shares = judged.filter(like="share_")
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (shares.to_numpy() >= 0).all()


def test_contributions_are_largest_first_and_said_in_a_sentence(detector, split):
    later, judged = split[1], detector.score(split[1])
    row = judged["score"].idxmax()
    listed = asset_contributions(later.loc[row], judged.loc[row])
    shares = [one["share"] for one in listed]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)
    assert listed[0]["value"] == later.loc[row, listed[0]["channel"]]
    text = asset_sentence(judged.loc[row], listed)
    assert text.startswith("Anomaly") and listed[0]["channel"] in text
    assert "nothing was measured" in asset_sentence(judged.loc[row], [])


def test_order_of_rows_and_labels_do_not_matter(detector, split):
    later = split[1]
    order = np.random.default_rng(0).permutation(len(later))
    shuffled = detector.score(later.iloc[order].assign(label=7, fault="x"))
    straight = detector.score(later).iloc[order].reset_index(drop=True)
    pd.testing.assert_frame_equal(shuffled, straight)


def test_mistakes_of_users_are_named(detector, split):
    train, later = split
    for table, message in [
        (later.head(0), "not one row"),
        (later.drop(columns="timestamp"), "no column 'timestamp'"),
        (later.drop(columns="pressure"), "no column 'pressure'"),
        (later.assign(pressure="high"), "'pressure' holds"),
        (later.assign(asset_id="pump-9"), "'pump-9' is unknown"),
        (later.assign(operational_state="broken"), "no operating state 'broken'"),
        (later.assign(timestamp=pd.NaT), "without timestamp"),
    ]:
        with pytest.raises(DataError, match=message):
            detector.score(table)
    with pytest.raises(DataError, match="asset pump-1: 10 training rows"):
        AssetDetector().fit(train.iloc[:10])
    with pytest.raises(DataError, match="no sensor"):
        AssetDetector().fit(train[["asset_id", "timestamp"]])
    with pytest.raises(DataError, match="call fit"):
        AssetDetector(tuple(NAMES)).score(later)


def test_groups_come_from_names_or_from_the_user():
    assert sensor_group("Accelerometer1RMS") == "vibration"
    assert sensor_group("fluid_temp_c") == "thermal" and sensor_group("flow_lpm") == "hydraulic"
    assert sensor_group("flow_lpm", {"flow_lpm": "seal"}) == "seal"


# streams and files


def test_stream_saved_and_resumed_equals_batch(detector, split, tmp_path):
    later = split[1].sort_values(["timestamp", "asset_id"]).reset_index(drop=True)
    batch = detector.score(later)
    stream, scores = AssetStream(detector), []
    for row, reading in enumerate(later.to_dict("records")):
        if row in (101, 300):
            stream.save(tmp_path / "memory.safetensors")
            stream = AssetStream(detector).resume(tmp_path / "memory.safetensors")
        sensors = {name: reading[name] for name in NAMES}
        answer = stream.update(reading["asset_id"], sensors, reading["operational_state"])
        scores.append(answer["score"])
    np.testing.assert_allclose(scores, batch["score"], atol=1e-6)
    json.dumps(answer)
    assert list(tmp_path.iterdir()) == [tmp_path / "memory.safetensors"]
    size = (tmp_path / "memory.safetensors").stat().st_size
    stream.save(tmp_path / "memory.safetensors")
    assert abs((tmp_path / "memory.safetensors").stat().st_size - size) < 200


def test_stream_refuses_what_it_does_not_know_and_stays_as_it_was(detector):
    stream = AssetStream(detector)
    stream.update("pump-1", {"pressure": 2.0})
    before = json.dumps(stream.memories["pump-1"].smooth.level.tolist())
    for arguments, message in [
        (("pump-7", {}), "unknown"),
        (("pump-1", {"colour": 1}), "no sensor 'colour'"),
        (("pump-1", {"pressure": "high"}), "not a number"),
        (("pump-1", {"pressure": 2.0}, "asleep"), "no operating state"),
    ]:
        with pytest.raises(DataError, match=message):
            stream.update(*arguments)
    assert json.dumps(stream.memories["pump-1"].smooth.level.tolist()) == before
    assert np.isfinite(stream.update("pump-1", {"pressure": None, "current": np.inf})["score"])


def test_memory_of_another_detector_or_damaged_is_refused(detector, split, tmp_path):
    path = tmp_path / "memory.safetensors"
    stream = AssetStream(detector)
    stream.update("pump-1", {"pressure": 2.0})
    stream.save(path)
    other = AssetDetector().fit(split[0][split[0]["asset_id"] == "pump-1"])
    with pytest.raises(ModelError, match="another detector"):
        AssetStream(other).resume(path)
    whole = path.read_bytes()
    with opened_memory(path) as (card, arrays):
        level = arrays["memory.0.smooth.level"]
    for damaged in (whole[:-40], b"[]", b""):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="start without it"):
            AssetStream(detector).resume(path)
    without = {name: array for name, array in arrays.items() if not name.endswith("peaks")}
    for others in (arrays | {"memory.0.smooth.level": np.r_[level, 1.0]}, without, {}):
        write_memory(path, card, others)
        with pytest.raises(ModelError, match="start without it"):
            AssetStream(detector).resume(path)
    write_memory(path, card | {"format": 2}, arrays)
    with pytest.raises(ModelError, match="has format 2: this version reads 4"):
        AssetStream(detector).resume(path)
    with pytest.raises(ModelError):
        AssetStream(detector).resume(tmp_path / "absent.safetensors")


def test_files_come_back_as_detectors(detector, split, tmp_path):
    save_assets(detector, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    again = load_assets(tmp_path)
    pd.testing.assert_frame_equal(again.score(split[1]), detector.score(split[1]))
    assert again.monitors["pump-1"].regimes.reasons == detector.monitors["pump-1"].regimes.reasons


def test_damaged_files_are_named(detector, tmp_path):
    with pytest.raises(ModelError, match="not fitted"):
        save_assets(AssetDetector(), tmp_path)
    with pytest.raises(ModelError, match=r"assets\.json is missing"):
        load_assets(tmp_path)
    for name in FILES:
        save_assets(detector, tmp_path)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ModelError, match=name):
            load_assets(tmp_path)
    save_assets(detector, tmp_path)
    config = json.loads((tmp_path / FILES[0]).read_text())
    for change in (
        {"format": 9},
        {"assets": config["assets"] | {"pump-3": {}}},
        {"channels": None},
    ):
        (tmp_path / FILES[0]).write_text(json.dumps(config | change))
        with pytest.raises(ModelError):
            load_assets(tmp_path)


@pytest.mark.parametrize("name", ["isolation_forest", "lof"])
def test_textbook_detectors_judge_the_same_tables(name):
    values = machine(700)
    values[600:, 2] += 12
    monitor = TextbookMonitor(name).fit(values[:400], seed=1)
    found, again = monitor.score(values), TextbookMonitor(name).fit(values[:400], seed=1)
    pd.testing.assert_frame_equal(found, again.score(values))
    assert found["score"].iloc[620:].mean() > found["score"].iloc[400:600].mean() + 0.1
    with pytest.raises(DataError, match="unknown detector of assets 'magic'"):
        TextbookMonitor("magic")


# simulated equipment


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_one_table_within_physical_bounds(kind):
    table = simulate_equipment(kind, days=40, minutes=30, seed=4)
    pd.testing.assert_frame_equal(table, simulate_equipment(kind, days=40, minutes=30, seed=4))
    assert not table.equals(simulate_equipment(kind, days=40, minutes=30, seed=5))
    assert table["duty_cycle"].between(0, 1).all() and table["temperature"].between(-10, 110).all()
    assert table["flow_rate"].isna().all() == (kind == "breaker")
    assert (table["label"] == 0).all() and "maintenance" in set(table["operational_state"])
    resting = table[table["operational_state"] == "maintenance"]
    assert resting["current"].abs().max() < 1 and (resting["duty_cycle"] == 0).all()


@pytest.mark.parametrize(("name", "kind"), [(n, kinds[0]) for n, kinds in SLOW.items()])
def test_slow_faults_grow_until_the_machine_trips(name, kind):
    fault = Fault(name, onset=100, hours=60)
    table, sound = (simulate_equipment(kind, f, days=8, minutes=30, seed=1) for f in ((fault,), ()))
    hours = np.arange(len(table)) / 2
    assert (table["label"] == (hours >= 100)).all()
    pd.testing.assert_frame_equal(table[hours < 100], sound[hours < 100])
    assert (table.loc[hours >= fault.failure, "operational_state"] == "tripped").all()
    away = (table[NAMES] - sound[NAMES]).abs() / sound[NAMES].std()
    late, mid = (hours >= 150) & (hours < 160), (hours >= 100) & (hours < 110)
    assert away[late].mean().max() > 5 * away[mid].mean().max()
    assert replace(fault, size=0.5).severity(np.array([1e4]))[0] == 0.5


def test_mistakes_in_simulations_are_named():
    for arguments, message in [
        ({"kind": "fan"}, "unknown kind"),
        ({"faults": (Fault("rust", 1, 1),)}, "unknown fault"),
        ({"faults": (Fault("contact_wear", 1, 1),)}, "a pump has no contact_wear"),
        ({"faults": (Fault("stuck", 1, 1, channel="smell"),)}, "no sensor 'smell'"),
        ({"faults": (Fault("leak", 1, 0),)}, "onset"),
        ({"days": 0}, "above 0"),
    ]:
        with pytest.raises(DataError, match=message):
            simulate_equipment(**arguments)


def test_time_to_alarm_wants_an_alarm_that_lasts():
    hours, alarm = np.arange(100.0), np.zeros(100, dtype=bool)
    alarm[20], alarm[60:] = True, True
    assert time_to_alarm(hours, alarm, 10, 90) == (53, 27)
    assert np.isnan(time_to_alarm(hours, alarm, 10, 50)).all()


def test_wear_is_noticed_in_time_and_a_sound_pump_is_left_in_peace():
    wear = Fault("bearing_wear", onset=400, hours=200)
    table = simulate_equipment("pump", (wear,), days=25, minutes=20, seed=7)
    hours = np.arange(len(table)) / 3
    early = hours < 300
    alarm = AssetDetector().fit(table[early]).score(table[~early])["alarm"].to_numpy()
    after, left = time_to_alarm(hours[~early], alarm, 400, 600)
    assert after < 120 and left > 80 and alarm[hours[~early] < 400].mean() < 0.02


# public data


@pytest.mark.real_data
def test_water_pump_without_labels(shared_data):
    table = read_series(shared_data / "anomaly" / "skab.parquet")
    label = table["label"].to_numpy(bool)
    alarm, test = np.zeros(len(table), dtype=bool), np.zeros(len(table), dtype=bool)
    for signal in signals(table):
        alarm[signal.position] = asset_scores(signal)["alarm"]
        test[signal.position] = ~signal.train
    label, alarm = label[test], alarm[test]
    assert 2 * (label & alarm).sum() / (label.sum() + alarm.sum()) > 0.83
    assert alarm[~label].mean() < 0.16


@pytest.mark.real_data
def test_bearings_that_ran_to_failure(shared_data):
    table = read_series(shared_data / "anomaly" / "ims_bearing.parquet")
    for signal in signals(table):
        surprise = asset_scores(signal)["surprise"].to_numpy()[~signal.train]
        tenth = len(surprise) // 10
        assert np.median(surprise[-tenth:]) > np.quantile(surprise[: 3 * tenth], 0.99)
