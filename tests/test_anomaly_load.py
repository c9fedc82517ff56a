"""What was expected of a meter, and when it is strange enough to wake somebody."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_ai.anomaly.alarm import CALM_HOURS, Alarm, lasting
from smartgrid_ai.anomaly.days import HOLIDAY, SUNDAY, WORKDAY, day_kinds
from smartgrid_ai.anomaly.detect import detect
from smartgrid_ai.anomaly.expectation import SIGNALS, learn_usual, new_memory, observe
from smartgrid_ai.anomaly.extent import ACCEPTED, DAY, ExtentJudge
from smartgrid_ai.anomaly.load import (
    LoadJudge,
    StuckCalibration,
    TrailingLine,
    judge_load,
    together,
    without_faults,
)
from smartgrid_ai.anomaly.supply import SupplyJudge
from smartgrid_ai.data.simulate import SIMULATED_PLACE, simulate
from smartgrid_ai.readings import DataError, Place

TRAIN = 24 * 70
FIRST = int(np.datetime64("2023-01-02T00", "h").astype(np.int64))


def office(days: int = 140, seed: int = 0, noise: float = 0.04) -> np.ndarray:
    "kW, hour by hour from a Monday; workdays are busy."
    hours = np.arange(24 * days)
    busy = (hours // 24 % 7 < 5) & (hours % 24 > 7) & (hours % 24 < 19)
    random = np.random.default_rng(seed)
    return (20 + 40 * busy) * (1 + noise * random.standard_normal(len(hours)))


def judged(
    load: np.ndarray,
    others: dict | None = None,
    place: Place = Place(),  # noqa: B008
    first: int = FIRST,
) -> pd.DataFrame:
    times = (first + np.arange(len(load))).astype("datetime64[h]")
    return judge_load(times, load, np.arange(len(load)) < TRAIN, place, others)


@pytest.fixture(scope="module")
def calm() -> pd.DataFrame:
    return judged(office())


def test_a_meter_that_never_changes_is_not_alarmed_for_weeks_by_one_odd_night():
    load = np.full(24 * 140, 5.0)
    load[TRAIN + 200 : TRAIN + 206] = 9.0
    alarm = judged(load)["alarm"].to_numpy()
    assert alarm[200:206].all() and alarm.sum() <= 12


# The calendar


def test_civil_days_hours_and_holidays():
    place = Place("Europe/Berlin", "DE")
    first = int(np.datetime64("2025-12-23T00", "h").astype(np.int64))
    day, clock, kind = day_kinds(np.arange(first, first + 24 * 11), place)
    assert clock[:3].tolist() == [1, 2, 3]
    by_day = [int(kind[day == one][-1]) for one in np.unique(day)]
    week = [WORKDAY, *[HOLIDAY] * 4, SUNDAY, *[HOLIDAY] * 4, WORKDAY]
    assert by_day[: len(week)] == week  # Tuesday 23 December to Friday 2 January


@pytest.mark.parametrize("place", [Place("UTC"), Place("Asia/Tokyo", "JP")])
def test_without_christmas_the_last_days_of_the_year_are_like_others(place):
    first = int(np.datetime64("2025-12-22T12", "h").astype(np.int64))
    _, _, kind = day_kinds(np.arange(first, first + 24 * 4), place)
    assert set(kind) == {WORKDAY}


def test_the_clock_change_is_no_surprise():
    place = Place("Europe/Berlin")
    hours = FIRST + np.arange(24 * 140)
    _, clock, kind = day_kinds(hours, place)
    random = np.random.default_rng(0)
    load = (
        20 + 40 * ((kind == WORKDAY) & (clock > 7) & (clock < 19)) + random.normal(0, 1, len(hours))
    )
    table = judged(load, place=place)  # the clocks change in the scored part
    assert table["alarm"].mean() < 0.04
    assert np.abs(table["residual"]).median() < 1


def test_a_known_holiday_is_expected_to_be_a_sunday():
    place = Place("Europe/Berlin", "DE", "BE")
    hours = FIRST + np.arange(24 * 140)
    _, clock, kind = day_kinds(hours, place)
    load = 20.0 + 40 * ((kind == WORKDAY) & (clock > 7) & (clock < 19))
    load += np.random.default_rng(0).normal(0, 1, len(hours))
    holiday = (kind == HOLIDAY) & (clock > 9) & (clock < 17)
    knows, guesses = judged(load, place=place), judged(load, place=Place("Europe/Berlin"))
    rows = holiday[knows.index]
    assert rows.sum() > 10 and (kind == SUNDAY).any()
    assert np.abs(knows["expected"][rows] - 20).max() < 10
    assert np.abs(guesses["expected"][rows] - 20).min() > 20
    assert guesses["near_6h"][rows].max() < 2  # the neighbour has seen Sundays


def test_who_works_on_holidays_is_left_alone_and_faults_there_are_found():
    place = Place("UTC", "DE", "BE")
    load = office()
    hours = FIRST + np.arange(len(load))
    day, _, kind = day_kinds(hours, place)
    scored = judged(load, place=place)
    rows = (kind == HOLIDAY)[scored.index] & (((day + 3) % 7) < 5)[scored.index]
    assert rows.sum() >= 24 * 4 and not scored["alarm"][rows].any()
    spoilt = np.where((kind == HOLIDAY) & (hours >= FIRST + TRAIN), 3 * load, load)
    found = judged(spoilt, place=place)["alarm"][rows]
    assert found.mean() > 0.5


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])  # of what a working day adds to the night
def test_closed_half_closed_or_working_until_new_year_is_no_fault(share):
    place = Place("UTC", "DE", "BE")
    load, first = office(), int(np.datetime64("2024-09-16T00", "h").astype(np.int64))  # a Monday
    dates = (first + np.arange(len(load))).astype("datetime64[h]").astype("datetime64[D]")
    between = (dates >= np.datetime64("2024-12-24")) & (dates < np.datetime64("2025-01-01"))
    night = np.where(load > 40, load / 3, load)
    closed = np.where(between, share * load + (1 - share) * night, load)
    table = judged(closed, place=place, first=first)
    assert between[table.index].sum() == 24 * 8 and not table["alarm"].any()
    tripled = judged(np.where(between, 3 * closed, load), place=place, first=first)
    assert tripled["alarm"][between[table.index]].mean() > 0.5


# Residuals


def test_a_calm_meter_is_left_alone(calm):
    assert calm["alarm"].mean() < 0.02
    assert calm["score"].between(0, 1).all()
    assert (calm["alarm"] == (calm["score"] > 0.5)).all()


def test_expectation_is_nearly_the_rhythm(calm):
    truth = office(noise=0.0)[calm.index]
    assert np.abs(calm["expected"] / truth - 1).mean() < 0.04
    near = np.abs(calm["residual"])
    assert 0.5 < near.median() < 0.9  # 0.67 for a normal distribution


def test_unit_does_not_matter(calm):
    for unit in (1e-6, 1e9):
        other = judged(office() * unit)
        np.testing.assert_allclose(other["score"], calm["score"], atol=1e-6)
        np.testing.assert_allclose(other["expected"], calm["expected"] * unit, rtol=1e-6)


def test_sign_tells_more_from_less():
    load = office()
    load[2000:2006] *= 0.4
    load[2600:2606] *= 2.0
    table = judged(load)
    assert table.loc[2003, "residual_6h"] < -1.5 and table.loc[2603, "residual_6h"] > 1.5
    assert table.loc[2003, "alarm"] and table.loc[2603, "alarm"]


def test_a_lasting_fault_stays_strange_for_days():
    load = office()
    load[2400:2496] *= 0.55
    table = judged(load)
    assert table.loc[2402:2495, "alarm"].mean() > 0.9


def test_a_new_world_is_accepted():
    load = office()
    load[2000:] *= 1.5
    table = judged(load)
    assert table.loc[2000:2020, "alarm"].any()
    assert table.loc[2000 + 24 * 30 :, "alarm"].mean() < 0.03


def test_a_weekly_fault_is_not_learned_in_a_month():
    load, hours = office(), np.arange(24 * 140)
    pump = (hours > 24 * 85) & (hours < 24 * 115) & (hours // 24 % 7 == 5) & (hours % 24 >= 18)
    load[pump] += 25
    table = judged(load)
    assert table.loc[pump[table.index], "alarm"].mean() > 0.9


def test_temperature_explains_a_cold_day():
    random, days = np.random.default_rng(0), 140
    outside = np.repeat(random.normal(2, 5, days), 24)
    load = 20 + 1.5 * np.maximum(16 - outside, 0) + random.normal(0, 1, 24 * days)
    knows, guesses = judged(load, {"temperature": outside}), judged(load)
    truth = load[knows.index]
    better, worse = (np.abs(table["expected"] - truth).mean() for table in (knows, guesses))
    assert better < 0.4 * worse


@settings(max_examples=10, deadline=None)
@given(now=st.integers(TRAIN + 1, 24 * 139), factor=st.floats(-3, 10), seed=st.integers(0, 9))
def test_nothing_looks_ahead(now, factor, seed):
    load = office(seed=seed)
    changed = load.copy()
    changed[now:] *= factor
    changed[now + 5 : now + 9] = np.nan
    first, second = judged(load), judged(changed)
    pd.testing.assert_frame_equal(first.loc[: now - 1], second.loc[: now - 1])


def test_gaps_missing_rows_and_zeros():
    load = office()
    load[1000:1050] = np.nan
    load[2000:2100] = np.nan
    keep = np.ones(len(load), bool)
    keep[2500:3000] = False
    times = (FIRST + np.arange(len(load))).astype("datetime64[h]")[keep]
    table = judge_load(times, load[keep], (np.arange(len(load)) < TRAIN)[keep])
    assert np.isfinite(table["score"]).all()
    missing = np.isnan(load[keep][table.index])
    assert missing.sum() == 100 and (table["score"][missing] == 0).all()
    assert table["alarm"].mean() < 0.04
    zeros = judged(np.zeros(24 * 140))
    assert not zeros["alarm"].any() and np.isfinite(zeros["score"]).all()


def test_memory_of_nothing_says_nothing():
    memory = new_memory()
    out = observe(memory, np.array([FIRST]), np.array([5.0]), np.array([np.nan]), Place())
    assert out.shape == (1, len(SIGNALS)) and np.isnan(out).all()
    assert observe(memory, np.empty(0, int), np.empty(0), np.empty(0), Place()).shape == (0, 13)


def test_frozen_judge_does_not_move():
    load, hours = office(), FIRST + np.arange(24 * 140)
    memory, _ = learn_usual(hours[:TRAIN], load[:TRAIN], np.full(TRAIN, np.nan), Place())
    before = memory["weights"].copy(), memory["spread"][2].copy()
    observe(memory, hours[TRAIN:], load[TRAIN:], np.full(len(load) - TRAIN, np.nan), Place())
    np.testing.assert_array_equal(memory["weights"][1], before[0][1])
    np.testing.assert_array_equal(memory["spread"][2], before[1])
    assert not np.allclose(memory["weights"][0], before[0][0])


# Decisions


def test_agreement_counts_and_more_is_never_less():
    low = np.zeros((1, 9))
    assert together(low) == 0
    random = np.random.default_rng(0)
    some = random.exponential(1, (50, 9))
    assert (together(some + random.exponential(1, (50, 9))) >= together(some)).all()


def test_stuck_values_are_found_where_residuals_are_small():
    load = office()
    at = 24 * 98 + 15  # a Monday afternoon
    load[at : at + 30] = load[at - 1]
    table = judged(load)
    assert table.loc[at + 5 : at + 29, "alarm"].mean() > 0.9
    coarse = np.round(office(noise=0.01) / 20) * 20  # a meter that only knows 20, 40 and 60 kW
    assert judged(coarse)["alarm"].mean() < 0.02


def test_stuck_calibration_learns_from_repeats():
    rare = StuckCalibration().fit(np.ones(1000))
    common = StuckCalibration().fit(np.tile(np.arange(1.0, 9), 200))
    run, span = np.array([1.0, 3, 6, 20, np.nan]), np.full(5, 9.0)
    assert (rare.surprise(run, span) >= common.surprise(run, span)).all()
    assert rare.surprise(run, span)[[0, 4]].tolist() == [0, 0]


def test_line_follows_a_rougher_world_and_forgets_single_faults():
    random = np.random.default_rng(0)
    line = TrailingLine(np.log(10))
    line.follow(random.exponential(1, 2000))
    faulty = random.exponential(1, 1000)
    faulty[500:520] = 100
    assert line.follow(faulty)[:480].mean() > 0.9 and line.factor > 0.9
    line.follow(random.exponential(2, 3000))
    assert line.factor == pytest.approx(0.5, abs=0.1)
    assert np.isfinite(TrailingLine().follow(np.full(3000, np.nan))).sum() == 0


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(1, 999), seed=st.integers(0, 99))
def test_line_and_trigger_go_on_where_they_were(cut, seed):
    strange = np.random.default_rng(seed).exponential(2, 1000)
    whole, parts = TrailingLine(1.0), TrailingLine(1.0)
    expected = whole.follow(strange)
    np.testing.assert_array_equal(
        np.r_[parts.follow(strange[:cut]), parts.follow(strange[cut:])], expected
    )
    alone, alarm, resumed = np.roll(strange, seed), Alarm(), Alarm()
    steady = alarm.follow(expected, alone, 3.0)
    pieces = [
        resumed.follow(expected[part], alone[part], 3.0) for part in (slice(cut), slice(cut, None))
    ]
    np.testing.assert_array_equal(np.concatenate(pieces), steady)
    assert resumed == alarm


@pytest.mark.parametrize("hours", [6, 12, 20])
def test_an_alarm_ends_soon_after_its_fault(hours):
    load = office()
    begun = TRAIN + 24 * 30
    load[begun : begun + hours] += 30
    table = judged(load)
    alarm = table["alarm"].to_numpy()[begun - TRAIN :]
    assert alarm[1:hours].all() and alarm[hours : hours + 24].sum() <= 2 * CALM_HOURS
    assert table["residual_24h"].to_numpy()[begun - TRAIN + hours + 2] > 1  # the mean remembers it


def test_an_alarm_that_no_hour_has_raised_is_ended_by_the_mean():
    surprise, calm = np.r_[np.full(30, 8.0), np.zeros(10)], np.full(40, 0.5)
    alarm = Alarm().follow(surprise, calm, np.log(100)) > np.log(100)
    assert alarm[:30].all() and not alarm[30:].any()


def test_a_single_hour_can_raise_an_alarm_that_hours_end():
    alone, surprise = np.full(30, 0.5), np.full(30, 8.0)
    alone[4], surprise[:4] = 9.0, 0.5
    alarm = Alarm().follow(surprise, alone, np.log(100)) > np.log(100)
    assert np.flatnonzero(alarm).tolist() == [4, 5, 6]


def test_a_second_fault_is_heard_while_means_remember_the_first():
    alone = np.full(30, 0.5)
    alone[2:6] = alone[15:17] = 9.0
    surprise = np.where(np.arange(30) < 2, 0.5, 8.0)
    alarm = Alarm().follow(surprise, alone, np.log(100)) > np.log(100)
    assert np.flatnonzero(alarm).tolist() == [2, 3, 4, 5, 6, 7, 15, 16, 17, 18]


def test_faults_in_training_are_left_out(monkeypatch):
    usual = np.random.default_rng(0).exponential(1, 2000)
    assert len(without_faults(usual)) == 2000
    assert len(without_faults(np.r_[usual, np.full(40, 60.0)])) == 2000
    assert len(without_faults(np.zeros(100))) == 100
    load = office()
    load[1200:1240] *= 0.1
    load[3000:3004] = 0
    monkeypatch.setattr("smartgrid_ai.anomaly.extent.UNHEARD", 0.0)
    careful = judged(load).loc[3000:3003, "surprise"]
    monkeypatch.setattr("smartgrid_ai.anomaly.load.FAR_OUT", 1e9)
    assert careful.min() > 1.1 * judged(load).loc[3000:3003, "surprise"].min()


def test_a_unit_error_in_a_wild_month_is_an_alarm():
    load = office()
    wild = slice(2600, 3300)
    load[wild] *= 1 + 0.8 * np.random.default_rng(1).random(700)
    load[3200:3204] /= 1000
    assert judged(load).loc[3200:3203, "alarm"].all()


@pytest.mark.parametrize("wrong", [0.4, -1.0, 0.0, 2.1])
def test_what_lies_beyond_all_that_was_seen_is_said_until_it_is_usual(wrong):
    load = np.full(3000, 100.0)
    load[1000:] *= wrong
    said = ExtentJudge().fit(load[:960]).surprise(load[960:]) > 0
    days = said[40 : 40 + 8 * DAY].reshape(-1, DAY).all(axis=1)
    assert not said[:40].any() and days[: ACCEPTED - 1].all()
    assert not said[40 + (ACCEPTED + 1) * DAY :].any()


@pytest.mark.parametrize("usual", [np.zeros(500), np.full(500, np.nan), -np.ones(500)])
def test_nothing_can_be_beyond_what_is_not_known(usual):
    assert not ExtentJudge().fit(usual).surprise(np.array([0.0, -5.0, np.nan, 7.0])).any()


def test_a_missing_week_is_forgotten_without_harm():
    judge = ExtentJudge().fit(np.full(500, 10.0))
    assert not judge.surprise(np.full(24 * 90, np.nan)).any()
    assert judge.surprise(np.array([4.0, 11.0, 21.0])).astype(bool).tolist() == [True, False, True]


def test_few_labels_move_the_line():
    load = office()
    times = FIRST + np.arange(len(load))
    judge = LoadJudge().fit(times[:TRAIN], load[:TRAIN])
    table = judge.judge(times[TRAIN:2400], load[TRAIN:2400])
    surprise = table["surprise"].to_numpy()
    labels = surprise > np.sort(surprise)[-30]
    assert judge.calibrate(surprise, labels) > 1.5
    more = judge.judge(times[2400:], load[2400:])["alarm"].mean()
    fresh = LoadJudge().fit(times[:TRAIN], load[:TRAIN])
    fresh.judge(times[TRAIN:2400], load[TRAIN:2400])
    assert more >= fresh.judge(times[2400:], load[2400:])["alarm"].mean()
    for nonsense in (np.zeros(len(labels), bool), np.ones(len(labels), bool)):
        with pytest.raises(DataError, match="both faulty and usual"):
            judge.calibrate(surprise, nonsense)


def test_lasting_needs_two_of_three():
    alarm = np.array([1, 0, 1, 0, 0, 1, 1], dtype=bool)
    assert lasting(alarm).tolist() == [False, False, True, False, False, False, True]
    assert lasting(np.zeros(0, bool)).shape == (0,)


def test_too_little_and_too_late_training_is_named():
    load = office()
    times = (FIRST + np.arange(len(load))).astype("datetime64[h]")
    with pytest.raises(DataError, match=r"300 hours.*give 336"):
        judge_load(times, load, np.arange(len(load)) < 300)
    with pytest.raises(DataError, match="early part"):
        judge_load(times, load, np.arange(len(load)) >= 1000)
    table = pd.DataFrame({"series": "late", "timestamp": times, "value": load})
    table["split"] = np.where(np.arange(len(load)) >= 1000, "train", "test")
    with pytest.raises(DataError, match=r"series late.*early part"):
        detect(table, ("default",))


# Voltage and frequency


def test_sags_swells_and_frequency_are_seen_though_the_load_is_usual():
    random = np.random.default_rng(0)
    hours = 24 * 140
    others = {"voltage": random.normal(231, 1, hours), "frequency": random.normal(50, 0.01, hours)}
    load = office()
    assert judged(load, others)["alarm"].mean() < 0.03
    others["voltage"][2500:2503], others["frequency"][3000:3002] = 200, 49.2
    table = judged(load, others)
    assert table.loc[2500:2502, "alarm"].all() and table.loc[3000:3001, "alarm"].all()
    assert table.loc[2500, "voltage"] > 5 and table.loc[2500, "frequency"] < 1


def test_channels_without_readings_say_nothing():
    judge = SupplyJudge("voltage").fit(np.full(500, np.nan))
    assert (judge.surprise(np.array([230.0, np.nan, 0.0])) == 0).all()
    taught = SupplyJudge("voltage").fit(np.random.default_rng(0).normal(230, 1, 500))
    assert taught.surprise(np.array([np.nan]))[0] == 0
    assert taught.surprise(np.array([180.0]))[0] > np.log(300)


# Simulator and public data


def event_f1(label: np.ndarray, alarm: np.ndarray) -> np.ndarray:
    "Faults, faults found, false alarms."

    def events(flags):
        edges = np.flatnonzero(np.diff(np.r_[0, flags.astype(int), 0]))
        return list(zip(edges[::2], edges[1::2]))

    found = sum(alarm[a:b].any() for a, b in events(label))
    false = sum(not label[a:b].any() for a, b in events(alarm))
    return np.array([len(events(label)), found, false])


def test_default_beats_the_best_single_detector_on_the_simulator():
    readings = simulate("small", seed=12)
    scores = detect(readings, ("residual", "default"), place=SIMULATED_PLACE)
    truth = readings[["meter_id", "timestamp", "fault"]].rename(columns={"meter_id": "series"})
    joined = scores.merge(truth, on=["series", "timestamp"]).sort_values("timestamp")
    quality = {}
    for model, rows in joined.groupby("model"):
        parts = [
            event_f1((own["fault"] != "").to_numpy(), own["alarm"].to_numpy())
            for _, own in rows.groupby("series")
        ]
        faults, found, false = np.sum(parts, axis=0)
        quality[model] = 2 * found / (faults + found + false), false / (len(rows) / 730.5)
    assert quality["default"][0] > 1.1 * quality["residual"][0] > 0.2
    assert quality["default"][1] < 1


@pytest.mark.real_data
def test_planted_faults_in_a_real_state_are_found(shared_data):
    table = pd.read_parquet(shared_data / "load" / "vic_elec.parquet").iloc[: 24 * 300]
    load = table["consumption"].to_numpy(dtype=float)
    times = table["timestamp"].to_numpy("datetime64[us]")
    for start, hours, factor in ((4000, 1, 1.5), (4700, 6, 0.0), (5500, 48, 0.7)):
        load[start : start + hours] *= factor
    place, train = Place("Australia/Melbourne", "AU", "VIC"), np.arange(len(load)) < 24 * 100
    judged = judge_load(times, load, train, place, {"temperature": table["temperature"].to_numpy()})
    faulty = [judged.loc[a : a + n - 1, "alarm"] for a, n in ((4000, 1), (4700, 6), (5500, 48))]
    assert all(part.any() for part in faulty) and faulty[2].mean() > 0.6
    usual = judged.drop(index=[*range(4000, 4030), *range(4700, 4730), *range(5500, 5600)])
    assert usual["alarm"].mean() < 0.03
