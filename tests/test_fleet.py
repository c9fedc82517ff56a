"""Many meters that are wrong together are found; one alone, holidays and the future change nothing."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_ai.anomaly.detect import detect
from smartgrid_ai.anomaly.fleet import KEPT, LEAST_METERS, FleetJudge
from smartgrid_ai.anomaly.kinds import name_kinds
from smartgrid_ai.anomaly.stream import LoadScorer, load_scorer
from smartgrid_ai.data.simulate import SIMULATED_PLACE, simulate
from smartgrid_ai.readings import Place

FIRST = int(np.datetime64("2023-01-02T00", "h").astype(np.int64))
TRAIN, LENGTH = 1500, 3000
BAVARIA = Place("Europe/Berlin", "DE", "BY")
LINE = np.log(300)  # where an alarm begins


def shops(seed: int = 0, meters: int = 6, common: float = 0.02) -> dict[str, np.ndarray]:
    "By meter (hours, 4): residual, its mean over a day, expected and scale; errors of 5 %."
    random, fleet = np.random.default_rng(seed), {}
    weather = common * np.sin(np.arange(LENGTH) / 60 + seed)
    for number in range(meters):
        error = weather + random.normal(0, 0.05, LENGTH)
        fleet[f"shop-{number}"] = seen(error)
    return fleet


def seen(error: np.ndarray) -> np.ndarray:
    residual = error / 0.06
    level = pd.Series(residual).rolling(24, min_periods=1).mean()
    return np.column_stack([residual, level, np.ones(LENGTH), np.full(LENGTH, 0.06)])


def shifted(fleet: dict, names: list[str], start: int, share: float, length: int = 24) -> dict:
    "The same fleet, some meters off by a share."
    changed = dict(fleet)
    for name in names:
        error = 0.06 * fleet[name][:, 0]
        error[start : start + length] += share
        changed[name] = seen(error)
    return changed


def followed(fleet: dict, place: Place = BAVARIA) -> dict[str, np.ndarray]:
    hours, judge = FIRST + np.arange(LENGTH), FleetJudge(place)
    judge.learn({name: (hours[:TRAIN], part[:TRAIN]) for name, part in fleet.items()})
    return judge.follow({name: (hours[TRAIN:], part[TRAIN:]) for name, part in fleet.items()})


def alarms(said: np.ndarray, start: int) -> bool:
    return bool((said[start - TRAIN : start - TRAIN + 24, 0] > LINE).any())


HIT = ["shop-0", "shop-1", "shop-2", "shop-4"]


@pytest.mark.parametrize("share", [-0.1, 0.1])
def test_a_common_share_is_found_on_those_who_have_it(share):
    said = followed(shifted(shops(), HIT, 2000, share))
    assert all(alarms(said[name], 2000) for name in HIT)
    assert not alarms(said["shop-5"], 2000)
    told = said["shop-0"][2000 - TRAIN + 23]
    assert np.sign(told[1]) == np.sign(share) and 0.05 <= abs(told[1]) <= 0.12
    assert 4 <= told[2] <= 5


@pytest.mark.parametrize("names, share", [(["shop-0"], -0.9), (["shop-0"], 5.0), (HIT[:2], 0.1)])
def test_few_meters_are_no_fleet(names, share):
    said = followed(shifted(shops(), names, 2000, share))
    assert not any(alarms(part, 2000) for part in said.values())


@pytest.mark.parametrize("common", [0.0, 0.05])
def test_usual_hours_are_left_alone(common):
    shares = [(part[:, 0] > LINE).mean() for part in followed(shops(1, 8, common)).values()]
    assert max(shares) < 0.004


def test_a_fleet_that_often_moves_together_needs_more():
    calm, restless = shops(), shops()
    for start in range(200, 2900, 60):
        restless = shifted(restless, list(restless), start, 0.1 * (-1) ** (start // 60), 12)
    first, second = (
        followed(shifted(fleet, HIT, 2020, 0.1))["shop-0"][2020 - TRAIN : 2044 - TRAIN, 0].max()
        for fleet in (calm, restless)
    )
    assert second < 0.5 * first


def test_what_begins_on_a_holiday_is_not_asked_about():
    may_day = int(np.datetime64("2023-05-01T06", "h").astype(np.int64)) - FIRST
    fleet = shops()
    shared = shifted(fleet, list(fleet), may_day, 0.1, 18)
    knows, guesses = (
        followed(shared, where)["shop-0"][may_day - TRAIN :][:24, 0].max()
        for where in (BAVARIA, Place("America/New_York", "US"))
    )
    assert guesses > 10 and knows < 0.5 * guesses


def test_without_a_country_nothing_is_said():
    said = followed(shifted(shops(), HIT, 2000, 0.1), Place("Europe/Berlin"))
    assert all((part == 0).all() for part in said.values())


@settings(max_examples=15, deadline=None)
@given(now=st.integers(TRAIN + 1, LENGTH - 30), seed=st.integers(0, 99), factor=st.floats(-5, 5))
def test_nothing_looks_ahead(now, seed, factor):
    fleet = shifted(shops(seed), HIT, max(now - 12, TRAIN), 0.15)
    changed = {}
    for name, part in fleet.items():
        error = 0.06 * part[:, 0]
        error[now:] *= factor
        error[now + 3 : now + 5] = np.nan
        changed[name] = seen(error)
    first, second = followed(fleet), followed(changed)
    for name in fleet:  # the hour `now` itself is judged by the hours before it
        np.testing.assert_array_equal(
            first[name][: now + 1 - TRAIN], second[name][: now + 1 - TRAIN]
        )


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 6 * (LENGTH - TRAIN) - 1), max_size=6), seed=st.integers(0, 99))
def test_in_pieces_and_in_any_order_of_meters_it_is_the_same(cuts, seed):
    fleet, random = shifted(shops(seed), HIT, 2000, 0.1), np.random.default_rng(seed)
    hours, judge = FIRST + np.arange(LENGTH), FleetJudge(BAVARIA)
    expected = followed(fleet)
    judge.learn({name: (hours[:TRAIN], part[:TRAIN]) for name, part in fleet.items()})
    rows = [(row, name) for row in range(TRAIN, LENGTH) for name in random.permutation(list(fleet))]
    pieces = np.split(np.arange(len(rows)), sorted(set(cuts)))
    answers = {name: [] for name in fleet}
    for piece in pieces:
        parts = {}
        for row, name in (rows[number] for number in piece):
            parts.setdefault(name, []).append(row)
        said = judge.follow({n: (hours[at], fleet[n][at]) for n, at in parts.items()})
        for name, part in said.items():
            answers[name].append(part)
    for name in fleet:
        np.testing.assert_allclose(np.concatenate(answers[name]), expected[name], atol=1e-9)


def test_missing_hours_and_missing_loads_disturb_nobody():
    fleet = shifted(shops(), HIT, 2000, 0.12)
    hours, judge = FIRST + np.arange(LENGTH), FleetJudge(BAVARIA)
    judge.learn({name: (hours[:TRAIN], part[:TRAIN]) for name, part in fleet.items()})
    keep = np.ones(LENGTH - TRAIN, dtype=bool)
    keep[300:420] = keep[490:520] = False  # silent when the others are hit
    fleet["shop-5"][1900:1950, :2] = np.nan
    parts = {name: (hours[TRAIN:], part[TRAIN:]) for name, part in fleet.items()}
    parts["shop-3"] = tuple(column[keep] for column in parts["shop-3"])
    said = judge.follow(parts)
    assert all(alarms(said[name], 2000) for name in HIT)
    assert said["shop-3"].shape == (keep.sum(), 3)
    assert all(np.isfinite(part).all() for part in said.values())


def test_who_comes_late_is_judged_by_what_was_known():
    fleet = shifted(shops(), HIT, 2000, 0.2)
    hours, judge = FIRST + np.arange(LENGTH), FleetJudge(BAVARIA)
    judge.learn({name: (hours[:TRAIN], part[:TRAIN]) for name, part in fleet.items()})
    early = {n: (hours[TRAIN:2020], part[TRAIN:2020]) for n, part in fleet.items() if n != "shop-4"}
    said = judge.follow(early)
    late = judge.follow({"shop-4": (hours[TRAIN:2020], fleet["shop-4"][TRAIN:2020])})["shop-4"]
    assert said["shop-0"][-1, 0] > LINE
    assert (late == 0).all()  # nobody heard of its share, so it is not among those meant
    with_it = followed(fleet)["shop-4"][: 2020 - TRAIN]
    assert (with_it[-KEPT:, 0] > LINE).any()


def test_meters_may_join():
    fleet = shifted(shops(meters=4), ["shop-0", "shop-1", "shop-3"], 2900, 0.15)
    hours, judge = FIRST + np.arange(LENGTH), FleetJudge(BAVARIA)
    first = ("shop-0", "shop-1")
    judge.learn({name: (hours[:TRAIN], fleet[name][:TRAIN]) for name in first})
    alone = judge.follow({name: (hours[TRAIN:2000], fleet[name][TRAIN:2000]) for name in first})
    assert len(first) < LEAST_METERS and all((part == 0).all() for part in alone.values())
    later = ("shop-2", "shop-3")
    judge.learn({name: (hours[:2000], fleet[name][:2000]) for name in later})
    said = judge.follow({name: (hours[2000:], part[2000:]) for name, part in fleet.items()})
    assert (said["shop-3"][900:924, 0] > LINE).any()  # after four weeks of history
    assert (said["shop-3"][:600, 0] == 0).all()


# Through the detector and the stream


@pytest.fixture(scope="module")
def readings() -> pd.DataFrame:
    "Four simulated meters of which three are given a tenth for a day; one lacks hours, one joins late."
    table = simulate("small", seed=4, faults={}).drop(columns=["fault", "expected"])
    hour = (table["timestamp"] - table["timestamp"].min()) // pd.Timedelta("1h")
    hit = hour.between(7000, 7027) & (table["meter_id"] != "household-1")
    table.loc[hit, "consumption"] *= 1.11
    lacking = (table["meter_id"] == "shop-1") & hour.between(5000, 5030)
    late = (table["meter_id"] == "office-1") & (hour < 500)
    table = table[~lacking & ~late & (hour < 7500)].reset_index(drop=True)
    end = table["timestamp"].min() + pd.Timedelta("2600h")
    split = np.where(table["timestamp"] < end, "train", "test")
    table.loc[table["meter_id"] == "household-1", "consumption"] += 1
    return table.assign(split=split)


@pytest.fixture(scope="module")
def found(readings) -> pd.DataFrame:
    return detect(readings, ("default",), place=SIMULATED_PLACE)


def test_the_default_finds_it_and_says_why(readings, found):
    named = name_kinds(found, readings, SIMULATED_PLACE)
    day = readings["timestamp"].min() + pd.Timedelta("7000h")
    inside = named[named["timestamp"].between(day, day + pd.Timedelta("27h"))]
    alarmed = inside[inside["alarm"]]
    hit = ["industry-1", "office-1", "shop-1"]
    last = alarmed.groupby("series").last().loc[hit]
    assert (last["kind"] == "false_data").all()
    assert last["because"].str.contains(r"[34] of 4 meters read too high, by about 1\d%").all()
    alone = [
        detect(readings[readings["meter_id"] == meter], ("default",), place=SIMULATED_PLACE)
        for meter in hit
    ]
    both = pd.concat(alone).merge(inside, on=["series", "timestamp"], suffixes=("", "_fleet"))
    assert both["alarm_fleet"].sum() > both["alarm"].sum() + 5


def test_a_stream_of_many_meters_is_the_file(readings, found, tmp_path):
    early, later = (part for _, part in readings.groupby(readings["split"] == "test"))
    scorer, random = LoadScorer(SIMULATED_PLACE).fit(early), np.random.default_rng(0)
    later = later.sample(frac=1, random_state=0).sort_values("timestamp", kind="stable")
    pieces = np.sort(random.choice(len(later), 12, replace=False))
    answers = []
    for piece in np.split(np.arange(len(later)), pieces):  # also in the middle of an hour
        answers.append(scorer.score_many(later.iloc[piece].sort_values(["meter_id", "timestamp"])))
        scorer.save(tmp_path / "scorer")
        scorer = load_scorer(tmp_path / "scorer")
    table = pd.concat(answers).sort_index()  # rows of the file
    assert (table["meter"].to_numpy() == found["series"].to_numpy()).all()
    np.testing.assert_allclose(table["score"], found["score"], atol=1e-6)
    assert (table["alarm"].to_numpy() == found["alarm"].to_numpy()).all()
    assert (table["fleet"] > LINE).sum() > 10


def test_one_by_one_is_the_file(readings, found):
    day = readings["timestamp"].min() + pd.Timedelta("6995h")
    early, later = (part for _, part in readings.groupby(readings["split"] == "test"))
    scorer = LoadScorer(SIMULATED_PLACE).fit(early)
    scorer.score_many(later[later["timestamp"] < day])
    now = later[(later["timestamp"] >= day)].sort_values("timestamp", kind="stable").iloc[:130]
    expected = found.set_index(["series", "timestamp"])["score"]
    for row in now.itertuples():
        others = {name: getattr(row, name) for name in ("temperature", "voltage", "frequency")}
        answer = scorer.score(row.meter_id, row.timestamp, row.consumption, **others)
        again = scorer.score(row.meter_id, row.timestamp, row.consumption, **others)
        assert again == answer
        assert answer["score"] == pytest.approx(expected[row.meter_id, row.timestamp], abs=1e-6)
    assert answer["fleet"] > 0


def test_one_or_two_meters_are_judged_as_each_alone(readings):
    pair = readings[readings["meter_id"].isin(["shop-1", "office-1"])]
    both = detect(pair, ("residual", "default"), place=SIMULATED_PLACE)
    for meter, part in pair.groupby("meter_id"):
        alone = detect(part, ("residual", "default"), place=SIMULATED_PLACE)
        rows = both[both["series"] == meter].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, alone)


def test_memory_of_a_fleet_is_bounded(readings, tmp_path):
    early, later = (part for _, part in readings.groupby(readings["split"] == "test"))
    scorer, sizes = LoadScorer(SIMULATED_PLACE).fit(early), []
    for hours in (200, 1200, 4800):
        last = max(judge.latest_hour for judge in scorer.judges.values())
        hour = later["timestamp"].astype("int64") // 3_600_000_000
        scorer.score_many(later[(hour > last) & (hour <= last + hours)])
        scorer.save(tmp_path / "scorer")
        sizes.append((tmp_path / "scorer").stat().st_size)
    assert max(sizes) - min(sizes) < 6000  # but for the knots of a curve
