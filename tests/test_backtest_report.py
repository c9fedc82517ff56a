"""The page of a backtest: what it says in good and bad cases, from the command line to the figures."""

import re

import backtest_data
import pytest
from backtest_data import MELBOURNE

pytest.importorskip("papermill", reason="the extra [report] is not installed")

from smartgrid_ai.cli import main
from smartgrid_ai.evaluate import horizons
from smartgrid_ai.evaluate.comparison import daily_peaks, grouped_metrics, score_rows
from smartgrid_ai.evaluate.style import figure_svg
from smartgrid_ai.readings import DataError

HERE = ("--timezone", "Australia/Melbourne", "--country", "AU", "--subdivision", "VIC")


@pytest.fixture(scope="module")
def table():
    return backtest_data.forecasts(meters=2, days=60, tasks=("h1", "d1", "w1"))


@pytest.fixture(scope="module")
def scored(table):
    return score_rows(table, MELBOURNE)


def render(table, folder, *options):
    "The page that the command writes."
    table.to_parquet(folder / "forecasts.parquet")
    output = folder / "pages"
    words = ["report", "backtest", folder / "forecasts.parquet", "--output", output, *options]
    code = main([str(word) for word in words])
    pages = [path for path in output.glob("*.html") if path.name != "index.html"]
    return code, pages[0].read_text()


@pytest.fixture(scope="module")
def page(table, tmp_path_factory):
    power = [name for name in table if name in ("prediction", "actual") or name.startswith("q0.")]
    kilo = table.assign(**{name: table[name] / 1000 for name in power})
    folder = tmp_path_factory.mktemp("backtest")
    said = ("--unit", "kW", "--weather", "observed (perfect forecast)", "--title", "A & <b>")
    return render(kilo, folder, *HERE, *said)


def headings(text):
    return re.findall(r"<h2[^>]*>(.*?)</h2>", text)


def test_the_page_stands_alone_and_has_every_part(page):
    code, text = page
    assert code == 0 and len(text.encode()) < 1_000_000
    assert "<script" not in text and "<img" not in text and "score_rows" not in text
    assert "A &amp; &lt;b&gt;" in text and 6 <= text.count("<figure") <= 8
    assert headings(text) == [
        "Verdict",
        "Leaderboard",
        "How the error grows with the distance",
        "When it errs",
        "Where it loses to the baseline",
        "Do the intervals keep their promise?",
        "The best and the worst week",
        "Daily peaks",
        "Whom the gate trusts, and when",
        "The worst meters",
        "Where this report comes from",
    ]
    assert "Weather known to the models: observed (perfect forecast)." in text


def test_the_page_says_the_figures_of_the_table(page, table, scored):
    text = page[1]
    metrics = grouped_metrics(scored, MELBOURNE).set_index(["task", "model"])
    for task, name in (("h1", "Next hour"), ("d1", "Day ahead"), ("w1", "Week ahead")):
        mae = metrics.loc[task, "mae"]
        assert f"{name}: the <b>" in text
        gain = 100 * (1 - mae["moe"] / mae["baseline"])
        assert f"{abs(gain):.1f} % {'less' if gain > 0 else 'more'} than" in text
    assert f"{metrics.loc[('d1', 'moe'), 'wape']:.2f} %" in text
    assert f"{len(table):,}" in text[text.index("Where this report comes from") :]


def test_where_it_loses_is_said_even_when_it_wins(page):
    text = page[1]
    lost = text[text.index("Where it loses to the baseline") :]
    assert "<b>4 of 24 hours of the day</b>" in lost


def test_a_plain_table_of_the_next_hour_is_enough(table, tmp_path):
    plain = table[(table["task"] == "h1") & (table["meter_id"] == "m0")]
    plain = plain[["model", "meter_id", "timestamp", "horizon", "prediction", "actual"]]
    plain = plain[plain["model"] != "moe"]
    code, text = render(plain, tmp_path, "--timezone", "Australia/Melbourne")
    assert code == 0 and "What the models knew of the weather was not said." in text
    assert "No country was named" in text and "so nothing is promised" in text
    for absent in ("How the error grows", "Whom the gate trusts", "The worst meters"):
        assert absent not in text


def test_a_meter_of_zeros_spoils_no_figure(table, tmp_path):
    dead = (table["meter_id"] == "m1").to_numpy()
    table = table.assign(actual=table["actual"].where(~dead, 0.0))
    table["prediction"] = table["prediction"].where(~dead, 0.1)
    code, text = render(table, tmp_path, *HERE)
    said = re.sub("<[^>]+>", " ", re.sub("<(svg|style).*?</(svg|style)>", "", text, flags=re.S))
    assert code == 0 and not re.search(r"\b(nan|inf)\b|misses by –", said, re.I)
    peaks = daily_peaks(table, MELBOURNE)
    assert set(peaks["meter_id"]) == {"m0"} and peaks["timing"].notna().all()


def test_mistakes_end_before_the_page_is_begun(table, tmp_path, capsys):
    words = ["report", "backtest", "--output", str(tmp_path / "pages")]
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "required: FORECASTS" in capsys.readouterr().err
    assert main([*words, "none.parquet"]) == 2
    assert "none.parquet: no such file" in capsys.readouterr().err
    table.head().to_parquet(tmp_path / "f.parquet")
    wrong = [*words, str(tmp_path / "f.parquet"), "--timezone", "Mars/Olympus"]
    assert main(wrong) == 2 and "unknown time zone" in capsys.readouterr().err
    assert not list((tmp_path / "pages").glob("backtest*"))


def test_without_a_baseline_the_page_says_why_it_failed(table, tmp_path, capsys):
    alone = table[(table["model"] == "moe") & (table["task"] == "d1")]
    code, text = render(alone, tmp_path)
    assert code == 1 and "no baseline to compare moe with" in text


def test_every_axis_has_a_unit_and_figures_are_the_same_bytes_twice(scored):
    day = scored[scored["task"] == "d1"]
    own = day[day["model"] == "moe"]
    both = ["moe", "baseline"]
    draw = [
        (lambda: horizons.plot_horizons(scored, MELBOURNE, both), ("WAPE [%]", "hours ahead")),
        (lambda: horizons.plot_cuts(day, MELBOURNE, both), ("WAPE [%]", "temperature [°C]")),
        (lambda: horizons.plot_advantage(day, MELBOURNE, *both), ("error removed [%]",)),
        (lambda: horizons.plot_promises(day, MELBOURNE, both), ("[points]", "interval [%]")),
        (lambda: horizons.plot_gate_cuts(own), ("mean gate weight [%]",)),
        (
            lambda: horizons.plot_fans([("A week", own[:168])], MELBOURNE),
            ("load [", "civil time"),
        ),
    ]
    for make, units in draw:
        text = figure_svg(make())
        assert text == figure_svg(make()) and all(unit in text for unit in units)


def test_what_cannot_be_drawn_is_refused(scored):
    hour = scored[scored["task"] == "h1"]
    with pytest.raises(DataError, match="of one horizon"):
        horizons.plot_horizons(hour, MELBOURNE, ["moe"])
    with pytest.raises(DataError, match="no gate"):
        horizons.plot_gate_cuts(hour[hour["model"] == "baseline"])
