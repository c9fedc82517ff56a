"""Validation finds what was broken on purpose; cleaning does what it was told and nothing else."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_ai.data.simulate import simulate
from smartgrid_ai.data.sources import read_readings
from smartgrid_ai.data.validate import RULES, Limits, Quality, clean, validate
from smartgrid_ai.readings import DataError, check_readings


@pytest.fixture
def healthy() -> pd.DataFrame:
    "Two meters, thirty days, nothing wrong."
    hours = np.arange(720)
    draw = np.random.default_rng(0)
    stamps = pd.date_range("2014-01-01", periods=720, freq="h", tz="UTC", unit="us")
    shape = 300 + 150 * np.sin(hours * 2 * np.pi / 24)
    frames = [
        pd.DataFrame(
            {
                "meter_id": name,
                "timestamp": stamps,
                "consumption": size * (shape + draw.normal(0, 10, 720)),
                "temperature": draw.normal(5, 3, 720),
                "frequency": draw.normal(50, 0.02, 720),
            }
        )
        for name, size in (("a", 1.0), ("b", 40.0))
    ]
    return pd.concat(frames, ignore_index=True).astype({"meter_id": "str"})


def found(report, rule: str) -> dict[str, int]:
    "Count per meter of one rule."
    part = report.findings[report.findings["rule"] == rule]
    return dict(zip(part["meter_id"], part["count"].tolist()))


def with_values(readings: pd.DataFrame, rows, values, column: str = "consumption") -> pd.DataFrame:
    changed = readings.copy()
    changed.loc[rows, column] = values
    return changed


def test_nothing_wrong_is_said_so(healthy):
    report = validate(healthy)
    assert report.ok and len(report.findings) == 0 and report.rows == 1440 and report.meters == 2
    assert "1,440 rows, 2 meters, 2014-01-01 00:00" in str(report) and "no findings" in str(report)


@pytest.mark.parametrize(
    ("rule", "rows", "values", "column", "count"),
    [
        ("missing_value", [5, 6], np.nan, "consumption", 2),
        ("infinite", [7], np.inf, "consumption", 1),
        ("infinite", [7], -np.inf, "temperature", 1),
        ("negative", [18], -20.0, "consumption", 1),
        ("range", [9], 85.0, "temperature", 1),
        ("range", [9], 0.0, "frequency", 1),
        ("outage", slice(100, 103), 0.0, "consumption", 4),
        ("flat", slice(200, 223), 311.5, "consumption", 24),
        ("jump", [300], 3000.0, "consumption", 1),
    ],
)
def test_each_rule_finds_its_fault_and_no_other(healthy, rule, rows, values, column, count):
    report = validate(with_values(healthy, rows, values, column))
    assert found(report, rule) == {"a": count}
    assert set(report.findings["rule"]) == {rule}
    finding = report.findings.iloc[0]
    start = rows.start if isinstance(rows, slice) else rows[0]
    assert finding["examples"][0] == f"{healthy['timestamp'][start]:%Y-%m-%d %H:%M}"
    assert finding["column"] == column and finding["share"] == pytest.approx(count / 720)
    assert report.ok == (RULES[rule][0] == "warning") and rule in str(report)


@pytest.mark.parametrize("factor", [1000, 0.001])
def test_unit_slips_are_found_by_the_meters_own_level(healthy, factor):
    slipped = with_values(healthy, slice(800, 809), healthy["consumption"][800:810] * factor)
    report = validate(slipped)
    assert found(report, "unit_slip") == {"b": 10}
    mended = clean(slipped, repair=["unit_slip"])
    np.testing.assert_allclose(mended["consumption"], healthy["consumption"], rtol=1e-12)
    assert (mended["quality"][800:810] == int(Quality.UNIT_SLIP | Quality.REPAIRED)).all()


def test_a_meter_of_zeros_and_a_counter_are_told(healthy):
    zeros = with_values(healthy, slice(0, 719), 0.0)
    assert found(validate(zeros), "zero") == {"a": 720}
    counted = with_values(healthy, slice(0, 719), healthy["consumption"][:720].cumsum())
    report = validate(counted)
    assert found(report, "register") == {"a": 720} and "counter" in str(report)
    back = with_values(counted, [400], 1.0)
    assert found(validate(back), "register") == {}


def test_a_shorter_flat_line_or_a_step_that_stays_is_no_fault(healthy):
    assert len(validate(with_values(healthy, slice(200, 222), 311.5)).findings) == 0
    raised = with_values(healthy, slice(400, 719), healthy["consumption"][400:720] + 3000)
    assert found(validate(raised), "jump") == {}


def test_limits_can_be_told(healthy):
    flat = with_values(healthy, slice(200, 205), 311.5)
    assert found(validate(flat, Limits(flat_hours=6)), "flat") == {"a": 6}
    assert found(validate(healthy, Limits(consumption=(0, 10_000))), "range").keys() == {"b"}


def test_a_gap_ends_a_run(healthy):
    flat = with_values(healthy, slice(200, 230), 311.5).drop(index=[215])
    report = validate(flat)
    assert found(report, "flat") == {} and found(report, "missing_hour") == {"a": 1}


def test_missing_hours_are_counted_inside_a_meter_only(healthy):
    report = validate(healthy.drop(index=[0, 1, 100, 101, 102, 500, 1439]))
    assert found(report, "missing_hour") == {"a": 4}
    assert report.findings.iloc[0]["examples"] == ["2014-01-05 04:00", "2014-01-21 20:00"]


def test_bad_form_is_described_not_refused(healthy):
    mixed = healthy.sample(frac=1, random_state=0)
    report = validate(pd.concat([mixed, mixed.head(3)]))
    assert sum(found(report, "duplicate").values()) == 3 and not report.ok
    assert sum(found(report, "order").values()) > 100
    late = healthy.assign(timestamp=healthy["timestamp"] + pd.Timedelta("5min"))
    assert found(validate(late), "irregular") == {"a": 720, "b": 720}
    half = healthy.assign(timestamp=healthy["timestamp"] + pd.Timedelta("30min"))
    assert not found(validate(half), "irregular")
    late_once = half["timestamp"].where(half.index != 7, half["timestamp"] - pd.Timedelta("30min"))
    assert found(validate(half.assign(timestamp=late_once)), "irregular") == {"a": 1}
    text = healthy.astype({"consumption": object})
    text.loc[3, "consumption"] = "n/a"
    assert found(validate(text), "type") == {"a": 1}
    naive = healthy.assign(timestamp=healthy["timestamp"].dt.tz_localize(None))
    assert found(validate(naive), "type") == {"a": 720, "b": 720}
    timeless = healthy.copy()
    timeless.loc[4, "timestamp"] = pd.NaT
    assert found(validate(timeless), "type") == {"a": 1}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_findings_about_values_do_not_depend_on_the_order_of_rows(seed):
    readings = simulate("small").iloc[:6000]
    mixed = readings.sample(frac=1, random_state=seed)
    plain = validate(readings).findings
    other = validate(mixed).findings.query("rule != 'order'").reset_index(drop=True)
    pd.testing.assert_frame_equal(plain, other)


def test_nothing_to_look_at(healthy):
    with pytest.raises(DataError, match="not one row"):
        validate(healthy.head(0))
    with pytest.raises(DataError, match="no column 'consumption'; there are: meter_id"):
        validate(healthy.drop(columns="consumption"))
    with pytest.raises(DataError, match="no row has both a meter and a readable timestamp"):
        validate(healthy.head(3).assign(timestamp="never"))


# -- cleaning ------------------------------------------------------------------------------------


def spoiled(healthy: pd.DataFrame) -> pd.DataFrame:
    broken = with_values(healthy, slice(200, 230), 311.5)
    broken = with_values(broken, [300], 3000.0)
    broken = with_values(broken, [400], -5.0)
    broken = with_values(broken, [500], np.inf)
    broken = with_values(broken, [600], np.nan)
    return with_values(broken, [700], 99.0, "temperature")


def test_told_nothing_it_changes_nothing_but_marks(healthy):
    broken = spoiled(healthy)
    cleaned = clean(broken)
    pd.testing.assert_frame_equal(cleaned.drop(columns="quality"), broken)
    marks = {220: Quality.FLAT, 300: Quality.JUMP, 400: Quality.NEGATIVE, 500: Quality.INFINITE}
    marks |= {600: Quality.MISSING, 700: Quality.RANGE, 0: Quality.GOOD}
    assert {row: Quality(int(cleaned["quality"][row])) for row in marks} == marks
    assert cleaned.attrs["notes"] == []


def test_it_removes_what_it_is_told_and_says_so(healthy):
    cleaned = clean(spoiled(healthy), remove=["flat", "infinite", "range"])
    gone = cleaned["consumption"].isna()
    assert gone.sum() == 31 + 1 + 1 and gone[200:231].all() and gone[500]
    assert np.isnan(cleaned["temperature"][700]) and cleaned["consumption"][300] == 3000
    assert Quality(int(cleaned["quality"][210])) == Quality.FLAT | Quality.REMOVED | Quality.MISSING
    assert "31 values of consumption removed: flat" in cleaned.attrs["notes"]
    assert "1 values of temperature removed: range" in cleaned.attrs["notes"]


@settings(max_examples=25, deadline=None)
@given(remove=st.sets(st.sampled_from(["flat", "outage", "jump", "negative", "infinite", "range"])))
def test_no_value_is_ever_invented(remove):
    readings = simulate("small").iloc[:8000]
    cleaned = clean(readings, remove=remove)
    kept = cleaned["consumption"].notna()
    assert len(cleaned) == len(readings)
    assert (cleaned["consumption"][kept] == readings["consumption"][kept]).all()
    taken = (cleaned["quality"] & int(Quality.REMOVED)) > 0
    assert (taken == ~kept).all()


def test_rows_are_sorted_and_exact_copies_dropped(healthy):
    mixed = pd.concat([healthy, healthy.iloc[[7]]]).sample(frac=1, random_state=1)
    cleaned = clean(mixed)
    check_readings(cleaned)
    pd.testing.assert_frame_equal(cleaned.drop(columns="quality"), healthy)
    assert cleaned["quality"][7] == int(Quality.DUPLICATE) and cleaned["quality"].sum() == 1024
    assert "1 rows dropped as copies" in cleaned.attrs["notes"]


def test_copies_that_disagree_need_a_word(healthy):
    twice = pd.concat([healthy, healthy.iloc[[7]].assign(consumption=1.0)])
    with pytest.raises(DataError, match="meter a has different rows for 2014-01-01 07:00"):
        clean(twice)
    assert clean(twice, remove=["duplicate"])["consumption"][7] == healthy["consumption"][7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"remove": ["missing_hour"]}, "rule 'missing_hour' cannot be removed: use range"),
        ({"repair": ["flat"]}, "rule 'flat' cannot be repaired: use unit_slip"),
        ({"remove": "flat"}, "take a list of rules"),
        ({"remove": ["unit_slip"], "repair": ["unit_slip"]}, "choose one"),
    ],
)
def test_impossible_wishes(healthy, options, message):
    with pytest.raises(DataError, match=message):
        clean(healthy, **options)


def test_cleaning_needs_a_readable_form(healthy):
    with pytest.raises(
        DataError, match=r"column 'timestamp': text among numbers.*read the file anew"
    ):
        clean(healthy.assign(timestamp=healthy["timestamp"].dt.tz_localize(None)))
    with pytest.raises(DataError, match="not where hours begin"):
        clean(healthy.assign(timestamp=healthy["timestamp"] + pd.Timedelta("5min")))


def test_input_is_left_alone(healthy):
    broken = spoiled(healthy)
    before = broken.copy()
    validate(broken)
    clean(broken, remove=["flat", "jump", "range"], repair=["unit_slip"])
    pd.testing.assert_frame_equal(broken, before)


def test_simulated_faults_are_found_without_their_labels():
    readings = simulate("seed_2011_2015")
    quality = clean(readings)["quality"]
    for fault, flag in (
        ("drop_out", Quality.OUTAGE),
        ("stuck_value", Quality.FLAT),
        ("unit_error", Quality.UNIT_SLIP),
    ):
        assert ((quality[readings["fault"] == fault] & int(flag)) > 0).mean() > 0.99
    assert ((quality > 0) & (readings["fault"] == "")).sum() < 30


def test_real_meters_are_usable(shared_data):
    for name, unit in (("vic_elec", "MW"), ("cambridge", "kWh"), ("pjm_zones", "MW")):
        readings = read_readings(shared_data / "load" / f"{name}.parquet", unit=unit)
        report = validate(readings)
        assert report.ok, str(report)
        missing = found(report, "missing_value")
        assert sum(missing.values()) == readings["consumption"].isna().sum()
