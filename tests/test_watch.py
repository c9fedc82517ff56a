"""A standing watch says in nightly pieces what `detect` says of the whole, and is not put off by the disorder of files."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smartgrid_ai.anomaly.detect import detect
from smartgrid_ai.anomaly.kinds import name_kinds
from smartgrid_ai.anomaly.stream import load_scorer
from smartgrid_ai.anomaly.watch import Watch, load_watch
from smartgrid_ai.anomaly.watch_assets import AssetWatch
from smartgrid_ai.anomaly.watch_channels import IN_STEP, LOOKS_BACK, ChannelWatch, Past
from smartgrid_ai.cli import main
from smartgrid_ai.data.equipment import Fault, simulate_equipment
from smartgrid_ai.data.simulate import SIMULATED_PLACE, simulate
from smartgrid_ai.data.tables import write_table
from smartgrid_ai.readings import DataError, ModelError, Place

try:
    import resource
except ImportError:
    resource = None

BEGIN, END = pd.Timestamp("2015-09-01", tz="UTC"), pd.Timestamp("2015-10-12", tz="UTC")
TOLD = ["score", "alarm", "expected", "residual", "kind", "kind_probability", "because"]


@pytest.fixture(scope="module")
def readings() -> pd.DataFrame:
    "A year of four meters; some hours are missing, some have no load."
    whole = simulate("small", seed=5).drop(columns=["fault", "expected"])
    whole = whole[whole["timestamp"] < END]
    gone = whole["timestamp"].between("2015-09-20 10:00Z", "2015-09-21 03:00Z")
    gone &= whole["meter_id"] == "office-1"
    whole.loc[whole.index[5000:5009], "consumption"] = np.nan
    return whole[~gone].reset_index(drop=True)


@pytest.fixture(scope="module")
def early(readings) -> pd.DataFrame:
    return readings[readings["timestamp"] < BEGIN]


@pytest.fixture(scope="module")
def late(readings) -> pd.DataFrame:
    return readings[readings["timestamp"] >= BEGIN]


@pytest.fixture(scope="module")
def memory(early, tmp_path_factory) -> Path:
    "Of a watch that has learned and judged nothing."
    watch, path = Watch(SIMULATED_PLACE), tmp_path_factory.mktemp("watch") / "w.safetensors"
    assert watch.learn(early) == []
    watch.save(path)
    return path


@pytest.fixture(scope="module")
def at_once(memory, late) -> pd.DataFrame:
    return load_watch(memory).judge(late)


def sorted_rows(parts: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(parts).sort_values(["series", "timestamp"]).reset_index(drop=True)


def test_the_watch_says_what_detect_says(readings, at_once):
    split = np.where(readings["timestamp"] < BEGIN, "train", "test")
    marked = readings.assign(split=split)
    scores = detect(marked, ("default",), place=SIMULATED_PLACE)
    named = sorted_rows([name_kinds(scores, marked, SIMULATED_PLACE)])
    ours = sorted_rows([at_once])
    assert len(ours) == len(named) and ours["alarm"].sum() > 40
    assert set(ours["kind"]) >= {"spike", "drop_out", "unit_error", "clock_shift"}
    columns = ["series", "timestamp", *TOLD]
    pd.testing.assert_frame_equal(ours[columns], named[columns], rtol=1e-6, check_dtype=False)


@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(st.integers(12, 300), min_size=1, max_size=12),
    overlap=st.integers(0, 400),
    lasting=st.booleans(),
)
def test_any_nights_make_the_same_table(steps, overlap, lasting, memory, late, tmp_path):
    watch, found, begin = load_watch(memory), [], BEGIN
    for number in range(10_000):
        end = begin + pd.Timedelta(hours=steps[number % len(steps)])
        since = begin - pd.Timedelta(hours=overlap)
        file = late[late["timestamp"].between(since, end, inclusive="left")]
        if len(file):
            found.append(watch.judge(file, lasting))
        if number % 5 == 0:
            watch.save(tmp_path / "kept.safetensors")
            watch = load_watch(tmp_path / "kept.safetensors")
        if end >= END:
            break
        begin = end
    whole = load_watch(memory).judge(late, lasting)
    pd.testing.assert_frame_equal(sorted_rows(found), sorted_rows([whole]), rtol=1e-9)


def test_what_was_kept_is_bounded_and_is_a_scorer_too(memory, late, at_once, tmp_path):
    watch = load_watch(memory)
    watch.judge(late)
    watch.save(tmp_path / "w.safetensors")
    assert watch.recent.groupby("meter_id").size().max() <= 342
    size = (tmp_path / "w.safetensors").stat().st_size
    assert size < 1.1 * memory.stat().st_size
    scorer = load_scorer(tmp_path / "w.safetensors")
    assert scorer.last["shop-1"]["score"] == pytest.approx(
        at_once[at_once["series"] == "shop-1"]["score"].iloc[-1]
    )


def test_an_alarm_goes_on_over_midnight(memory, late):
    low = late.copy()
    stolen = (low["meter_id"] == "office-1") & (low["timestamp"] >= "2015-09-08 18:00Z")
    low.loc[stolen, "consumption"] *= 0.2
    watch, begins = load_watch(memory), []
    for night in pd.to_datetime(["2015-09-09", "2015-09-10"], utc=True):
        found = watch.judge(low[low["timestamp"] < night])
        alarms = found[found["alarm"] & (found["series"] == "office-1")]
        begins.append(set(alarms["since"]))
    assert len(begins[0]) == 1 and begins[0] <= begins[1]


def test_an_alarm_that_outlasts_the_memory_keeps_its_beginning(memory, late, tmp_path):
    dead = late.copy()
    dead.loc[(dead["meter_id"] == "office-1") & (dead["timestamp"] >= "2015-09-02 09:00Z"), "consumption"] = 0.0  # fmt: skip
    watch, found = load_watch(memory), []
    for night in pd.date_range(BEGIN, END, freq="2D"):
        file = dead[dead["timestamp"].between(night, night + pd.Timedelta("47h"))]
        found += [watch.judge(file)] if len(file) else []
        watch.save(tmp_path / "w.safetensors")
        watch = load_watch(tmp_path / "w.safetensors")
    whole = sorted_rows([load_watch(memory).judge(dead)])
    lasts = whole.groupby(["series", "since"]).size()
    assert lasts.max() > 342 + 48
    pd.testing.assert_series_equal(sorted_rows(found)["since"], whole["since"])


def test_missing_loads_at_the_end_may_still_come(memory, late):
    watch = load_watch(memory)
    day = late[late["timestamp"] < BEGIN + pd.Timedelta("1D")]
    early = day.copy()
    early.loc[early["timestamp"] >= BEGIN + pd.Timedelta("20h"), "consumption"] = np.nan
    first, second = watch.judge(early), watch.judge(day)
    assert len(first) == 80 and len(second) == 16
    assert first.attrs["notes"] == [
        "16 hours at the end have no load yet, and are judged when one comes"
    ]
    assert sorted_rows([first, second])["expected"].notna().all()
    whole = load_watch(memory).judge(day)
    np.testing.assert_allclose(sorted_rows([first, second])["score"], sorted_rows([whole])["score"])


def test_disorder_is_told_and_stops_nobody(memory, late):
    watch = load_watch(memory)
    week = late[late["timestamp"] < BEGIN + pd.Timedelta("7D")]
    stranger = week[week["meter_id"] == "shop-1"].assign(meter_id="kiosk-9")
    far = week[week["meter_id"] == "office-1"]
    far = far.assign(timestamp=far["timestamp"] + pd.Timedelta("70D"))
    rest = week[week["meter_id"] != "office-1"]
    found = watch.judge(pd.concat([rest, far, stranger], ignore_index=True))
    assert set(found["series"]) == {"household-1", "industry-1", "shop-1"}
    unknown, silent = found.attrs["notes"]
    assert "kiosk-9" in unknown and "--learn" in unknown
    assert "office-1" in silent and "8 weeks" in silent
    again = watch.judge(rest)
    assert again.empty and again.attrs["notes"] == ["504 of 504 readings are of hours judged before, and passed over"]  # fmt: skip
    assert len(watch.judge(late[late["meter_id"] == "office-1"])) > 900


def test_a_meter_is_learned_later_and_anew(memory, early, late):
    watch = load_watch(memory)
    kiosk = early[early["meter_id"] == "shop-1"].assign(meter_id="kiosk-9")
    short = early[early["meter_id"] == "shop-1"].tail(300).assign(meter_id="stall-2")
    assert watch.learn(pd.concat([kiosk, short], ignore_index=True)) == ["stall-2 (12 days)"]
    assert watch.names == ("household-1", "industry-1", "office-1", "shop-1", "kiosk-9")
    day = late[late["timestamp"] < BEGIN + pd.Timedelta("3D")]
    own = day[day["meter_id"] == "shop-1"].assign(meter_id="kiosk-9")
    found = watch.judge(pd.concat([day, own], ignore_index=True))
    scores = found.pivot_table(index="timestamp", columns="series", values="expected")
    np.testing.assert_allclose(scores["kiosk-9"], scores["shop-1"])
    watch.learn(early[early["meter_id"] == "shop-1"])
    anew = watch.judge(day[day["meter_id"] == "shop-1"])
    np.testing.assert_allclose(anew["expected"], scores["shop-1"])


def test_who_stopped_to_report(memory, late):
    watch = load_watch(memory)
    assert watch.quiet() == {}
    there = late[(late["meter_id"] != "shop-1") | (late["timestamp"] < BEGIN + pd.Timedelta("5h"))]
    watch.judge(there[there["timestamp"] < BEGIN + pd.Timedelta("28h")])
    assert watch.quiet() == {}
    watch.judge(there[there["timestamp"] < BEGIN + pd.Timedelta("29h")])
    assert watch.quiet() == {"shop-1": BEGIN + pd.Timedelta("4h")}


def test_labels_move_the_line_of_all_nights_to_come(memory, late, at_once, tmp_path):
    watch, middle = load_watch(memory), BEGIN + pd.Timedelta("20D")
    first = watch.judge(late[late["timestamp"] < middle])
    near = first[first["score"].between(0.3, 0.7) & ~first["alarm"]]
    weak = first[first["alarm"]].nsmallest(3, "score").index
    label = np.full(len(first), np.nan)
    label[near.nlargest(20, "score").index], label[weak] = 1.0, 1.0
    label[first["score"].nsmallest(30).index] = 0.0
    said = watch.calibrate(first, label)
    assert watch.shift > 0.1 and "23 of 23 anomalies are beyond it, and 0 of 30 usual" in said
    watch.save(tmp_path / "w.safetensors")
    watch = load_watch(tmp_path / "w.safetensors")
    second = watch.judge(late[late["timestamp"] >= middle])
    before = at_once[at_once["timestamp"] >= middle]
    assert second["alarm"].sum() > before["alarm"].sum() and (second["shift"] == watch.shift).all()
    both = pd.concat([first, second], ignore_index=True)
    shift = watch.shift
    watch.calibrate(both, np.r_[label, np.full(len(second), np.nan)])
    assert watch.shift == shift  # the same labels twice
    loud = second["score"] >= second["score"].nlargest(10).min()
    watch.calibrate(both, np.r_[np.full(len(first), np.nan), loud.astype(float)])
    assert watch.shift < shift  # judged under a moved line, counted without it


def test_a_meter_that_is_learned_later_has_the_line_of_all(memory, early, late):
    watch = load_watch(memory)
    watch._move(-1.0)
    watch.learn(early[early["meter_id"] == "shop-1"].assign(meter_id="kiosk-9"))
    assert {judge.shift for judge in watch.scorer.judges.values()} == {-1.0}


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/New_York"])
def test_hours_of_other_clocks(early, late, zone):
    shift = pd.Timedelta("30min") if zone == "Asia/Kolkata" else pd.Timedelta(0)
    place, found = Place(zone), []
    learned, later = (part.assign(timestamp=part["timestamp"] + shift) for part in (early, late))
    watch = Watch(place)
    watch.learn(learned)
    for day in range(41):
        begin = BEGIN + shift + pd.Timedelta(days=day)
        found.append(watch.judge(later[later["timestamp"].between(begin, begin + pd.Timedelta("23h"))]))  # fmt: skip
    frame = pd.concat([learned.assign(split="train"), later.assign(split="test")])
    frame = frame.sort_values(["meter_id", "timestamp"], kind="stable").reset_index(drop=True)
    named = name_kinds(detect(frame, ("default",), place=place), frame, place)
    columns = ["series", "timestamp", *TOLD]
    ours, theirs = sorted_rows(found)[columns], sorted_rows([named])[columns]
    assert ours["alarm"].any()
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-6, check_dtype=False)


@pytest.mark.parametrize("harm", ["cut", "foreign", "gone", "scorer"])
def test_a_damaged_memory_is_refused(harm, memory, tmp_path):
    path = tmp_path / "w.safetensors"
    if harm == "cut":
        path.write_bytes(memory.read_bytes()[:-1000])
    elif harm == "foreign":
        path.write_text("not a memory")
    elif harm == "scorer":
        load_scorer(memory).save(path)
    with pytest.raises(ModelError, match=r"w\.safetensors"):
        load_watch(path)


# The command


@pytest.fixture
def files(readings, tmp_path, monkeypatch) -> Path:
    "history.csv in kWh, and one file a day."
    monkeypatch.chdir(tmp_path)
    kilo = readings.assign(consumption=readings["consumption"] / 1000)
    write_table(kilo[kilo["timestamp"] < BEGIN], "history.csv")
    days = kilo["timestamp"].dt.strftime("%Y-%m-%d")
    for day in ("2015-09-29", "2015-09-30", "2015-10-01"):
        write_table(kilo[days == day], f"{day}.csv")
    write_table(kilo[kilo["timestamp"].between(BEGIN, "2015-09-28 23:00Z")], "september.csv")
    return tmp_path


PLACE = ("--timezone", "Europe/Berlin", "--country", "DE")
KEPT = ("--memory", "w.safetensors")


def call(*arguments: str) -> int:
    return main(["watch", *arguments])


def test_nights_of_the_command(files, capsys, at_once):
    assert call("history.csv", "--unit", "kWh", *PLACE, *KEPT) == 0
    assert "learned 4 meters" in capsys.readouterr().out
    out = ("--out", "alarms.csv")
    for name in ("september", "2015-09-29", "2015-09-30", "2015-10-01"):
        assert call(f"{name}.csv", *KEPT, *out) == 0
    said = capsys.readouterr()
    assert "household-1, since 2015-09-30 18:00" in said.out and "unit error" in said.out
    assert "note" not in said.err
    table = pd.read_csv("alarms.csv", parse_dates=["timestamp"])
    expected = at_once[at_once["timestamp"] < pd.Timestamp("2015-10-02", tz="UTC")]
    both = table.merge(expected, on=["series", "timestamp"], suffixes=("", "_there"))
    assert len(both) == len(table) == len(expected)
    np.testing.assert_allclose(both["score"], both["score_there"], rtol=1e-4)
    np.testing.assert_allclose(both["expected"], both["expected_there"], rtol=1e-4)
    before = Path("alarms.csv").read_bytes()
    assert call("2015-10-01.csv", *KEPT, *out) == 0
    assert "no reading is new" in capsys.readouterr().out
    assert Path("alarms.csv").read_bytes() == before
    report = ("report", "anomalies", "alarms.csv", "--data", "september.csv", "--unit", "kWh")
    assert main([*report, *PLACE]) == 2  # the days are not in that file
    kilo = pd.concat([pd.read_csv(f"{n}.csv") for n in ("september", "2015-09-29", "2015-09-30", "2015-10-01")])  # fmt: skip
    kilo.sort_values(["meter_id", "timestamp"]).to_csv("judged.csv", index=False)
    assert main([*report[:3], "--data", "judged.csv", "--unit", "kWh", *PLACE]) == 0


def test_a_night_that_was_cut_short_is_judged_again(files, monkeypatch):
    assert call("history.csv", "--unit", "kWh", *PLACE, *KEPT) == 0
    before = Path("w.safetensors").read_bytes()

    def pulled(*_):
        raise KeyboardInterrupt

    out = ("--out", "alarms.parquet")
    with monkeypatch.context() as patched:
        patched.setattr(Watch, "save", pulled)
        assert call("september.csv", *KEPT, *out) == 130
    assert Path("w.safetensors").read_bytes() == before
    table = pd.read_parquet("alarms.parquet")
    assert call("september.csv", *KEPT, *out) == 0
    pd.testing.assert_frame_equal(pd.read_parquet("alarms.parquet"), table)


def test_of_two_watches_at_once_the_later_writes_nothing(files, monkeypatch, capsys):
    assert call("history.csv", "--unit", "kWh", *PLACE, *KEPT) == 0
    out, judge, after = ("--out", "alarms.csv"), Watch.judge, {}

    def overtaken(*arguments):
        with monkeypatch.context() as patched:
            patched.setattr(Watch, "judge", judge)
            assert call("september.csv", *KEPT, *out) == 0
        after.update({path: path.read_bytes() for path in Path().iterdir()})
        return judge(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Watch, "judge", overtaken)
        assert call("september.csv", *KEPT, *out) == 2
    assert "w.safetensors was replaced by another watch" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path().iterdir()} == after
    assert call("september.csv", *KEPT, *out) == 0
    assert "no reading is new" in capsys.readouterr().out


def test_labels_given_to_the_command(files, capsys):
    out = ("--out", "alarms.csv")
    assert call("history.csv", "--unit", "kWh", *PLACE, *KEPT) == 0
    assert call("september.csv", *KEPT, *out) == 0
    table = pd.read_csv("alarms.csv")
    usual, strange = table[~table["alarm"]].nsmallest(5, "score"), table[table["alarm"]]
    labels = pd.concat([usual.assign(label=0), strange.nlargest(5, "score").assign(label=1)])
    labels[["series", "timestamp", "label"]].to_csv("looked_at.csv", index=False)
    capsys.readouterr()
    assert call("2015-09-29.csv", *KEPT, *out, "--calibrate", "looked_at.csv") == 0
    assert "5 of 5 anomalies are beyond it, and 0 of 5 usual" in capsys.readouterr().err
    kept = {path: path.read_bytes() for path in Path().iterdir()}
    labels.assign(label=1 - labels["label"])[["series", "timestamp", "label"]].to_csv("wrong.csv", index=False)  # fmt: skip
    for line, named in (
        (("2015-09-30.csv", *KEPT, *out, "--calibrate", "wrong.csv"), "exchanged"),
        (("2015-09-30.csv", *KEPT, "--calibrate", "looked_at.csv"), "--out"),
        (("2015-09-30.csv", *KEPT, *out, "--calibrate", "nowhere.csv"), "nowhere.csv"),
    ):
        assert call(*line) == 2
        assert named in capsys.readouterr().err
    Path("wrong.csv").unlink()
    assert {path: path.read_bytes() for path in Path().iterdir()} == kept


@pytest.mark.skipif(resource is None, reason="this system cannot limit the size of files")
def test_a_full_disk_leaves_the_memory_of_before(files):
    assert call("history.csv", "--unit", "kWh", *PLACE, *KEPT) == 0
    before = {path: path.read_bytes() for path in Path().iterdir()}

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    command = [
        sys.executable,
        "-c",
        "import sys; from smartgrid_ai.cli import main; sys.exit(main())",
    ]
    command += ["watch", "september.csv", *KEPT]
    done = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=small_files, check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "w.safetensors cannot be written" in done.stderr and "make room" in done.stderr
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_learn_until_and_learn_new(files, readings, capsys):
    rest = readings[readings["meter_id"] != "shop-1"]
    write_table(rest, "three.csv")
    write_table(readings, "all.csv")
    until = ("--learn-until", "2015-08-31")
    assert call("three.csv", "--unit", "W", *PLACE, *KEPT, *until) == 0
    said = capsys.readouterr().out
    assert "learned 3 meters" in said and "to 2015-08-31 23:00" in said and "judged" in said
    assert call("all.csv", *KEPT) == 0
    assert "shop-1" in capsys.readouterr().err
    assert call("all.csv", *KEPT, "--learn-new", *until) == 0
    said = capsys.readouterr()
    assert "learned 1 meter from" in said.out and "of 1 meter up to" in said.out


WRONG = [
    (("september.csv", *KEPT, "--country", "FR"), "--country FR w.safetensors DE leave another"),
    (("september.csv", *KEPT, "--out", "history.csv"), "history.csv column model"),
    (
        ("september.csv", *KEPT, "--out", "judged.csv"),
        "judged.csv watch expected name another file",
    ),
    (("september.csv", "--memory", "w.bin"), "w.bin .safetensors"),
    (("pumps.csv", *KEPT), "pumps.csv machines meters its own --memory"),
    (("september.csv", *KEPT, "--learn", "kiosk"), "--learn kiosk september.csv"),
    (("short.csv", "--unit", "kWh", "--memory", "new.safetensors"), "short.csv 21 days longer"),
    (("september.csv", "--memory", "broken.safetensors"), "broken.safetensors not a saved"),
    (("september.csv",), "--memory"),
    ((".", *KEPT), "a folder name one .csv"),
]


@pytest.mark.parametrize(("line", "named"), WRONG)
def test_a_mistake_changes_nothing(line, named, files, capsys):
    assert call("history.csv", "--unit", "kWh", *PLACE, *KEPT) == 0
    Path("broken.safetensors").write_text("nothing")
    pd.read_csv("history.csv").head(400).to_csv("short.csv", index=False)
    Path("pumps.csv").write_text(
        "asset_id,timestamp,vibration,pressure\np,2015-01-01 00:00,1.0,2.0\n"
    )
    score = pd.DataFrame(
        {"model": ["default"], "series": ["a"], "timestamp": ["2015-01-01 00:00Z"]}
    )
    score.assign(score=0.1, alarm=0).to_csv("judged.csv", index=False)
    kept = {path: path.read_bytes() for path in Path().iterdir()}
    capsys.readouterr()
    code = 2
    try:
        code = call(*line)
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and [word for word in named.split() if word not in error] == []
    assert {path: path.read_bytes() for path in Path().iterdir()} == kept


# Machines


@pytest.fixture(scope="module")
def machines() -> pd.DataFrame:
    "Two pumps and a breaker of different steps; one wears out, one is in maintenance for some hours."
    worn = Fault("bearing_wear", onset=330, hours=300)
    parts = [
        simulate_equipment("pump", (worn,), days=24, minutes=30),
        simulate_equipment("pump", days=24, minutes=60, seed=1),
        simulate_equipment("breaker", days=24, minutes=15, seed=2),  # enough for a course
    ]
    table = pd.concat(parts, ignore_index=True).drop(columns=["fault", "label", "kind"])
    stopped = (table["asset_id"] == "pump-0") & table["timestamp"].between(*MAINTENANCE)
    table.loc[stopped, "operational_state"] = "maintenance"
    table.loc[table.index[700:703], "vibration"] = np.nan
    return table.rename(columns={"asset_id": "series"})


MAINTENANCE = pd.to_datetime(["2024-01-18 08:00Z", "2024-01-18 15:00Z"])
LEARNED = pd.Timestamp("2024-01-13", tz="UTC")


@pytest.mark.parametrize("only_lasting", [False, True])
def test_machines_by_night_are_what_detect_says(machines, only_lasting, tmp_path):
    known = machines["timestamp"] < LEARNED
    marked = machines.assign(split=np.where(known, "train", "test"))
    whole = detect(marked, ("default",), only_lasting=only_lasting)
    watch, found, later = AssetWatch(), [], machines[~known]
    assert watch.learn(machines[known]) == []
    nights = pd.date_range(LEARNED, periods=13, freq="25h5min")
    for begin, end in itertools.pairwise(nights):
        file = later["timestamp"].between(begin - pd.Timedelta("9h"), end, inclusive="left")
        found.append(watch.judge(later[file], only_lasting))
        watch.save(tmp_path / "m.safetensors")
        watch = load_watch(tmp_path / "m.safetensors")
    columns = ["series", "timestamp", "score", "alarm", "expected", "residual", "channel", "because"]  # fmt: skip
    ours, theirs = sorted_rows(found), sorted_rows([whole])
    assert ours["alarm"].sum() > 50 and not ours["alarm"].all()
    pd.testing.assert_frame_equal(ours[columns], theirs[columns], rtol=1e-6, check_dtype=False)
    quiet = ours["timestamp"].between(*MAINTENANCE) & (ours["series"] == "pump-0")
    assert quiet.any() and not ours.loc[quiet, "alarm"].any()
    runs = ours["alarm"] & ~ours.groupby("series")["alarm"].shift(fill_value=False)
    assert (ours.loc[runs, "since"] == ours.loc[runs, "timestamp"]).all()
    alarmed = ours[ours["alarm"]]
    assert len(alarmed.groupby(["series", "since"])) == runs.sum()


def test_what_a_machine_did_is_told_by_its_worst_reading(machines, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    jumped, rows = machines.copy(), machines["series"] == "breaker-2"
    hours = jumped["timestamp"].between("2024-01-15 08:00Z", "2024-01-15 16:00Z")
    jumped.loc[rows & hours, "vibration"] += 0.5
    known = jumped["timestamp"] < LEARNED
    for name, part in (("early", jumped[known]), ("later", jumped[~known])):
        part.to_csv(f"{name}.csv", index=False)
    memory = ("--memory", "m.safetensors")
    assert call("early.csv", *memory) == 0 and call("later.csv", *memory) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "since 2024-01-15" in line and "breaker-2" in line]  # fmt: skip
    moment = line.partition("over): at its worst, ")[2][:16]
    assert "2024-01-15 08:00" < moment < "2024-01-15 16:00"  # and not when it ended, hours later
    worst = jumped[rows & (jumped["timestamp"] == f"{moment}Z")]
    assert f"vibration is {worst['vibration'].iloc[0]:.3g}" in line


def test_machines_that_come_and_go(machines):
    known = machines["timestamp"] < LEARNED
    pumps, late = machines["series"].isin(["pump-0", "pump-1"]), machines[~known]
    watch = AssetWatch()
    assert watch.learn(machines[known & pumps]) == [] and watch.names == ("pump-0", "pump-1")
    found = watch.judge(late)
    assert set(found["series"]) == {"pump-0", "pump-1"}
    assert "breaker-2" in found.attrs["notes"][0]
    few = machines[machines["series"] == "breaker-2"].head(30)
    assert watch.learn(few) == ["breaker-2 (30 readings)"]
    assert watch.learn(machines[known & ~pumps]) == []
    again = watch.judge(late)
    assert set(again["series"]) == {"breaker-2"} and "passed over" in again.attrs["notes"][0]
    assert watch.judge(late).empty
    with pytest.raises(DataError, match="'pressure', which was learned"):
        watch.judge(late.drop(columns="pressure"))
    more = late[late["series"] == "pump-0"]
    watch.judge(more.assign(timestamp=more["timestamp"] + pd.Timedelta("20D")))
    assert set(watch.quiet()) == {"pump-1", "breaker-2"}


@pytest.fixture(scope="module")
def channels() -> pd.DataFrame:
    "The oil of two transformers, read every five minutes; some readings have no value, one sensor is stuck for a while."
    random, rows = np.random.default_rng(3), np.arange(24 * 288)
    stamps, parts = pd.date_range("2024-01-01", periods=len(rows), freq="5min", tz="UTC"), []
    for name in ("T1", "T2"):
        oil = 60 + 5 * np.sin(rows * 2 * np.pi / 288) + random.normal(0, 0.5, len(rows))
        oil[random.integers(0, len(rows), 40)] = np.nan
        parts.append(pd.DataFrame({"series": name, "timestamp": stamps, "oil": oil}))
    parts[0].loc[4500:4530, "oil"] += 12
    parts[1].loc[5500:5700, "oil"] = 61.5
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("only_lasting", [False, True])
def test_single_channels_by_night_are_what_detect_says(channels, only_lasting, tmp_path):
    known = channels["timestamp"] < LEARNED
    marked = channels.assign(split=np.where(known, "train", "test"))
    whole = detect(marked, ("default",), only_lasting=only_lasting)
    watch, found, later = ChannelWatch(), [], channels[~known]
    assert watch.learn(channels[known]) == []
    for begin in pd.date_range(LEARNED, periods=12, freq="25h5min"):
        span = begin - pd.Timedelta("9h"), begin + pd.Timedelta("25h5min")
        file = later["timestamp"].between(*span, inclusive="left")
        found.append(watch.judge(later[file], only_lasting))
        watch.save(tmp_path / "c.safetensors")
        watch = load_watch(tmp_path / "c.safetensors")
    columns = ["series", "timestamp", "score", "alarm", "expected", "residual", "because"]
    ours, theirs = sorted_rows(found), sorted_rows([whole])
    assert set(ours.loc[ours["alarm"], "series"]) == {"T1", "T2"} and ours["alarm"].mean() < 0.1
    assert ours["because"].str.contains("61.5 has been repeated").any()
    pd.testing.assert_frame_equal(ours[columns], theirs[columns], rtol=1e-6, check_dtype=False)


def test_the_past_of_a_channel_is_bounded_and_says_the_same():
    random, count = np.random.default_rng(0), LOOKS_BACK + 4000
    values = np.sin(np.arange(600 + count) / 30) + random.normal(0, 0.2, 600 + count)
    values[random.integers(600, 600 + count, 300)] = np.nan
    at_once = Past(values[:600], 600).judged(values[600:])
    past = Past(values[:600], 600)
    past.judged(values[600 : 600 + LOOKS_BACK + 2500])
    assert LOOKS_BACK <= np.isfinite(past.values[600:]).sum() < LOOKS_BACK + IN_STEP
    last = past.judged(values[600 + LOOKS_BACK + 2500 :])
    theirs = at_once.iloc[-len(last) :].reset_index(drop=True)
    pd.testing.assert_frame_equal(last.reset_index(drop=True), theirs, rtol=1e-6)


def test_channels_that_cannot_be_watched(channels):
    watch = ChannelWatch()
    few = channels.groupby("series").head(40)
    assert watch.learn(few) == ["T1 (40 readings)", "T2 (40 readings)"] and watch.names == ()
    assert watch.learn(channels[channels["series"] == "T1"]) == []
    with pytest.raises(DataError, match="no column 'oil', which was learned"):
        watch.judge(channels.rename(columns={"oil": "air"}))
    with pytest.raises(DataError, match="oil, air: one channel is watched here, not 2"):
        ChannelWatch().learn(channels.assign(air=1.0 * channels.index))


def test_a_single_sensor_night_by_night(channels, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = channels.rename(columns={"series": "asset_id"})
    begin = table["timestamp"] < LEARNED
    table[begin].to_csv("history.csv", index=False)
    table[~begin].to_csv("night.csv", index=False)
    memory = ("--memory", "c.safetensors")
    assert call("history.csv", *memory) == 0
    assert call("night.csv", *memory, "--out", "scores.csv") == 0
    said = capsys.readouterr().out
    assert "learned 2 machines" in said and "where nine of ten that were learned lie" in said
    assert isinstance(load_watch("c.safetensors"), ChannelWatch)
    assert call("night.csv", *memory, "--out", "scores.csv") == 0
    assert "no reading is new" in capsys.readouterr().out
    assert len(pd.read_csv("scores.csv")) == (~begin).sum()


def test_a_machine_without_a_name_by_the_clock_on_the_wall(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pump = simulate_equipment("pump", days=20, minutes=30).drop(columns=["asset_id", "fault", "label", "kind"])  # fmt: skip
    wall = pump["timestamp"].dt.tz_convert("Asia/Tokyo").dt.tz_localize(None)
    pump = pump.assign(timestamp=wall)
    memory = ("--memory", "m.safetensors")
    pump[:800].to_csv("monday.csv", index=False)
    pump[780:].to_csv("tuesday.csv", index=False)
    clock = ("--clock", "local", "--timezone", "Asia/Tokyo")
    assert call("monday.csv", *clock, *memory) == 0
    for _ in range(2):
        assert call("tuesday.csv", *memory, "--out", "scores.csv") == 0
    said = capsys.readouterr().out
    assert (
        f"up to {wall.iloc[-1]:%Y-%m-%d %H:%M} (Asia/Tokyo)" in said and "no reading is new" in said
    )
    scores = pd.read_csv("scores.csv", parse_dates=["timestamp"])
    assert len(scores) == 160 and set(scores["series"]) == {"machine"}
    assert scores["timestamp"].iloc[-1] == wall.iloc[-1].tz_localize("Asia/Tokyo")
    pd.DataFrame({"meter_id": ["a"], "timestamp": ["2015-01-01Z"], "consumption": [1.0]}).to_csv("meters.csv", index=False)  # fmt: skip
    assert call("meters.csv", *memory) == 2
    assert "meters.csv is readings of meters" in capsys.readouterr().err
    scores.drop(columns="channel").to_csv("other.csv", index=False)
    assert call("tuesday.csv", *memory, "--out", "other.csv") == 2
    assert "other.csv was not written by a watch of this kind" in capsys.readouterr().err
