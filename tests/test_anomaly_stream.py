"""Readings one at a time give what a file gives, also after a save, and disorder is told."""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from smartgrid_ai.anomaly.load import judge_load
from smartgrid_ai.anomaly.stream import LoadScorer, load_scorer
from smartgrid_ai.data.simulate import SIMULATED_PLACE, simulate
from smartgrid_ai.readings import DataError, ModelError

OTHERS = ("temperature", "voltage", "frequency")


@pytest.fixture(scope="module")
def meter() -> pd.DataFrame:
    readings = simulate("small", seed=2)
    own = readings[readings["meter_id"] == "shop-1"].drop(columns=["fault", "expected"])
    own = own.drop(index=own.index[5000:5040]).reset_index(drop=True)
    own.loc[4000:4010, "consumption"] = np.nan
    own.loc[6000:6003, "voltage"] = 190.0
    return own


@pytest.fixture(scope="module")
def parts(meter) -> tuple[pd.DataFrame, pd.DataFrame]:
    return meter.iloc[:2200], meter.iloc[2200:]


@pytest.fixture(scope="module")
def batch(meter) -> pd.DataFrame:
    others = {name: meter[name].to_numpy() for name in OTHERS}
    times = meter["timestamp"].dt.tz_localize(None).to_numpy()
    train = np.arange(len(meter)) < 2200
    return judge_load(times, meter["consumption"].to_numpy(), train, SIMULATED_PLACE, others)


@pytest.fixture
def scorer(parts) -> LoadScorer:
    return LoadScorer(SIMULATED_PLACE).fit(parts[0])


def test_a_year_saved_and_resumed_is_the_batch(scorer, parts, batch, tmp_path):
    later, answers, start = parts[1], [], 0
    random = np.random.default_rng(0)
    while start < len(later):
        stop = min(len(later), start + int(random.integers(1, 400)))
        answers.append(scorer.score_many(later.iloc[start:stop]))
        scorer.save(tmp_path / "scorer.safetensors")
        scorer, start = load_scorer(tmp_path / "scorer.safetensors"), stop
    answers = pd.concat(answers)
    assert len(answers) > 8700 and batch["alarm"].sum() > 20
    assert (answers["alarm"].to_numpy() == batch["alarm"].to_numpy()).all()
    for name in ("score", "expected", "residual", "residual_6h", "surprise", "voltage"):
        np.testing.assert_allclose(answers[name], batch[name], atol=1e-6, rtol=1e-9)


def test_one_by_one_is_the_batch(scorer, parts, batch, tmp_path):
    for number, row in enumerate(parts[1].iloc[:150].itertuples()):
        if number == 70:
            scorer.save(tmp_path / "s")
            scorer = load_scorer(tmp_path / "s")
        others = {name: getattr(row, name) for name in OTHERS}
        answer = scorer.score("shop-1", row.timestamp, row.consumption, **others)
        expected = batch.iloc[number]
        assert answer["alarm"] == expected["alarm"]
        assert answer["score"] == pytest.approx(expected["score"], abs=1e-6)
        assert answer["expected"] == pytest.approx(expected["expected"], rel=1e-9)


def test_memory_is_bounded(scorer, parts, tmp_path):
    scorer.score_many(parts[1].iloc[:24])
    scorer.save(tmp_path / "early")
    scorer.score_many(parts[1].iloc[24:])
    scorer.save(tmp_path / "late")
    early, late = ((tmp_path / name).stat().st_size for name in ("early", "late"))
    assert abs(late - early) < 300 and late < 200_000
    assert not list(tmp_path.glob(".*"))


def test_the_same_reading_twice_teaches_once(scorer, parts, batch):
    rows = list(parts[1].iloc[:30].itertuples())
    for row in rows:
        others = {name: getattr(row, name) for name in OTHERS}
        first = scorer.score("shop-1", row.timestamp, row.consumption, **others)
        assert scorer.score("shop-1", row.timestamp, row.consumption, **others) == first
    assert first["score"] == pytest.approx(batch["score"].iloc[29], abs=1e-6)


def test_disorder_is_refused_and_changes_nothing(scorer, parts, batch):
    scorer.score_many(parts[1].iloc[:50])
    when = parts[1]["timestamp"].iloc[49]
    with pytest.raises(DataError, match=r"shop-1.*judged with another load"):
        scorer.score("shop-1", when, 1.0)
    with pytest.raises(DataError, match=r"is over.*order of time"):
        scorer.score("shop-1", when - pd.Timedelta(hours=5), 500.0)
    with pytest.raises(DataError, match="is over"):
        scorer.score_many(parts[1].iloc[20:60])
    rest = scorer.score_many(parts[1].iloc[50:80])
    np.testing.assert_allclose(rest["score"], batch["score"].iloc[50:80], atol=1e-6)


def test_mistakes_are_named(scorer, parts):
    when = parts[1]["timestamp"].iloc[0]
    with pytest.raises(DataError, match="'nobody' is not known"):
        scorer.score("nobody", when, 1.0)
    with pytest.raises(DataError, match="no time zone"):
        scorer.score("shop-1", "2030-01-01 00:00", 1.0)
    with pytest.raises(DataError, match="'humidity' is not judged"):
        scorer.score("shop-1", when, 1.0, humidity=3.0)
    with pytest.raises(DataError, match=r"meter shop-1: 100 hours.*336"):
        LoadScorer().fit(parts[0].iloc[:100])
    for stamp in ("soon", None, "NaT"):
        with pytest.raises(DataError, match=r"meter shop-1: .* is no point in time: write it like"):
            scorer.score("shop-1", stamp, 1.0)
    for load in ("abc", None, float("inf"), -float("inf")):
        with pytest.raises(DataError, match=r"meter shop-1: consumption is .*send NaN"):
            scorer.score("shop-1", when, load)
    with pytest.raises(DataError, match=r"meter shop-1: voltage is 'low'.*send NaN"):
        scorer.score("shop-1", when, 1.0, voltage="low")
    quarters = parts[0].assign(
        timestamp=pd.date_range("2020-01-01", periods=2200, freq="15min", tz="UTC").as_unit("us")
    )
    with pytest.raises(DataError, match="several readings in one hour"):
        LoadScorer().fit(quarters)


def test_a_fit_that_fails_changes_nothing(scorer, parts, batch):
    short = parts[0].tail(48).assign(meter_id="shop-2")
    other = parts[0].assign(consumption=9.0, meter_id="shop-1")
    with pytest.raises(DataError, match="meter shop-2: 48 hours"):
        scorer.fit(pd.concat([other, short], ignore_index=True))
    assert list(scorer.judges) == ["shop-1"]
    rest = scorer.score_many(parts[1].iloc[:30])
    np.testing.assert_allclose(rest["score"], batch["score"].iloc[:30], atol=1e-6)


def test_a_stamp_years_ahead_is_refused_and_true_readings_go_on(scorer, parts, batch):
    latest = parts[0]["timestamp"].iloc[-1]
    with pytest.raises(DataError, match=r"meter shop-1: the hour 2031-.* days after the latest.*mend the stamp"):  # fmt: skip
        scorer.score("shop-1", "2031-05-20 03:00Z", 500.0)
    with pytest.raises(DataError, match="mend the stamp, or fit the meter again"):
        scorer.score("shop-1", latest + pd.Timedelta(weeks=8, hours=1), 500.0)
    leap = parts[1].iloc[:2].copy()
    leap.iloc[1, leap.columns.get_loc("timestamp")] += pd.Timedelta(weeks=9)
    with pytest.raises(DataError, match=r"days after the latest.*mend the stamp"):
        scorer.score_many(leap)
    rest = scorer.score_many(parts[1].iloc[:30])
    np.testing.assert_allclose(rest["score"], batch["score"].iloc[:30], atol=1e-6)
    assert scorer.score("shop-1", latest + pd.Timedelta(weeks=8), 500.0)["consumption"] == 500


def test_a_memory_has_to_have_a_place(scorer, tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere: make it"):
        scorer.save(tmp_path / "nowhere" / "scorer.safetensors")
    with pytest.raises(DataError, match="is a folder: name a file"):
        scorer.save(tmp_path)


def test_missing_load_is_no_alarm(scorer, parts):
    answer = scorer.score("shop-1", parts[1]["timestamp"].iloc[0], float("nan"))
    assert answer["score"] == 0 and not answer["alarm"]
    again = scorer.score("shop-1", parts[1]["timestamp"].iloc[0], float("nan"))
    assert again["hour"] == answer["hour"] and again["score"] == 0


def test_damaged_files_are_told(scorer, tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        load_scorer(tmp_path / "absent")
    (tmp_path / "broken").write_bytes(b"not a scorer")
    with pytest.raises(ModelError, match="broken is not a saved scorer"):
        load_scorer(tmp_path / "broken")
    scorer.save(tmp_path / "good")
    with safe_open(tmp_path / "good", "numpy") as file:
        card = json.loads(file.metadata()["card"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(arrays, tmp_path / "newer", {"card": json.dumps(card | {"format": 99})})
    with pytest.raises(ModelError, match="format 99"):
        load_scorer(tmp_path / "newer")
    arrays.pop("0.memory.sheet")
    save_file(arrays, tmp_path / "less", {"card": json.dumps(card)})
    with pytest.raises(ModelError, match=r"memory\.sheet"):
        load_scorer(tmp_path / "less")
