"""An hour, a day and a week ahead on public load data: every model of this package, and LightGBM beside it.

    python benchmarks/forecasts.py [SET ...] [--seeds 0 1 2] [--horizons 1 24 168] [--again] [--readme] [-- OPTIONS]
    python benchmarks/forecasts.py --table
    python benchmarks/forecasts.py vic_elec -- --epochs 1

For every set, horizon and seed `smartgrid backtest` runs as a person would run it, with default settings and nothing chosen
per set but calendar, clock and unit; the scorer that lies beside the data (`../score/score_load.py`) prints the
errors, and this script arranges them: mean of the seeds, and their spread. What stands behind `--` goes to `smartgrid
backtest`. Sets, calendars and dates are those of the benchmark protocol: train, then validation, then test, nothing
chosen on the test part; observed weather at the target hour where the set has weather (a perfect forecast), none
elsewhere. The error is MAPE for system loads and WAPE for meters and for a week ahead, in percent.

LightGBM is the model `lightgbm` of the same backtest: the rows, the residual target (over the reference normalised by
the structure model) and the split of the mixture's own trees; learning rate and leaves are those of its grid with the
best validation error, trees are added until that has not fallen for a while; at last it is grown anew on all hours before the
test part, as the experts catch up on them. *80 % by hour, season, horizon* is the smallest and the largest share that the mixture's 80 % interval
holds in any civil hour, season or hour ahead. LightGBM and the forests do not correct themselves by their latest misses, as the experts of
the mixture do. CPU-minutes are those of the whole backtest with all models. `--readme` writes all that is kept between its
two marks in README.md.

A run takes minutes to half an hour, all of them many hours. So what the scorer said of each is kept in `benchmarks/results`,
with the revision and the versions that made it: a run that is there is not made again (`--again` does), an
interrupted benchmark goes on where it was, two can work side by side on different sets, and `--table` only arranges what is there. The
table names the revisions. Runs with options of their own behind `--` are neither kept nor mixed with kept ones.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from smartgrid_ai.evaluate.comparison import coverage_table, score_rows
from smartgrid_ai.evaluate.files import read_forecasts
from smartgrid_ai.provenance import git_revision, package_versions
from smartgrid_ai.readings import Place

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
EXPERTS = ("gru", "cnn_lstm", "transformer", "attention", "dense", "tree")
MODELS = ("persistence", "seasonal_naive", "baseline", "lightgbm", *EXPERTS, "moe")
TASKS = {1: "h1", 24: "d1", 168: "w1"}  # by horizon
MARKS = ("<!-- benchmark -->", "<!-- /benchmark -->")
HEADER = (
    "set", "task", "error", "seeds", "persistence", "same hour last week", "RF + ET → Ridge", "LightGBM",
    "best expert", "**mixture**", "spread", "mixture / LightGBM", "80 % holds", "95 % holds", "80 % by hour, season, horizon",
    "CPU-minutes a seed", "revision",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    "How a set is read, cut and judged."

    dates: tuple[str, ...]  # first day of train, validation and test; last day of test
    place: Place
    unit: str = "MW"
    weather: str = "observed"  # or "none"
    error: str = "MAPE"
    horizons: str = "1,24"

    @property
    def split(self) -> dict[str, str]:
        "The dates by the names that the command line uses."
        return dict(zip(("train-start", "val-start", "test-start", "test-end"), self.dates))


US = Place("UTC", "US")  # these files' own clock is read as UTC
ENGLAND = Place("Europe/London", "GB", "ENG")
SETTINGS = {
    "vic_elec": Setting(
        ("2012-01-01", "2013-10-01", "2014-01-01", "2014-12-31"),
        Place("Australia/Melbourne", "AU", "VIC"),
    ),
    "gefcom2014e": Setting(
        ("2010-01-01", "2013-07-01", "2014-01-01", "2014-12-31"), US, horizons="1,24,168"
    ),
    "isone_2003_2006": Setting(("2003-04-01", "2005-10-01", "2006-01-01", "2006-12-31"), US),
    "fr_load": Setting(
        ("2011-01-01", "2016-07-01", "2017-01-01", "2017-12-31"),
        Place("Europe/Paris", "FR"),
        weather="none",
    ),
    "pjm_zones": Setting(
        ("2013-01-01", "2017-04-01", "2017-08-03", "2018-08-02"), US, weather="none"
    ),
    "cambridge": Setting(
        ("2013-01-01", "2014-10-01", "2015-01-01", "2015-12-31"), ENGLAND, "kWh", error="WAPE"
    ),
    "london_lcl": Setting(
        ("2013-01-01", "2013-09-15", "2013-10-20", "2013-12-31"), ENGLAND, "kWh", "none", "WAPE"
    ),
}


# Running


def backtest_command(
    setting: Setting, data: Path, forecasts: Path, horizon: int, seed: int, extra: list[str]
) -> list[str]:
    "The command line that a person would type."
    options = {f"--{name}": date for name, date in setting.split.items()}
    place = (setting.place.timezone, setting.place.country, setting.place.subdivision)
    options |= {f"--{k}": v for k, v in zip(("timezone", "country", "subdivision"), place) if v}
    options |= {"--unit": setting.unit, "--weather": setting.weather, "--seed": str(seed)}
    options |= {"--horizon": str(horizon), "--models": ",".join(MODELS)}
    words = [word for pair in options.items() for word in pair]
    program = Path(sys.executable).with_name("smartgrid")
    return [str(program), "backtest", str(data), *words, "--forecasts", str(forecasts), *extra]


def run(name: str, data: Path, horizon: int, seed: int, extra: list[str]) -> dict:
    "One backtest: what the scorer says of each model, and what it was made with."
    with TemporaryDirectory() as folder:
        forecasts, result = Path(folder) / "forecasts.parquet", Path(folder) / "scores.json"
        file, begun = data / f"{name}.parquet", computing()
        command = backtest_command(SETTINGS[name], file, forecasts, horizon, seed, extra)
        print("$ " + " ".join(command), file=sys.stderr, flush=True)
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            sys.exit(f"smartgrid backtest ended with {done.returncode}: see above")
        seconds = computing() - begun
        judge = [sys.executable, scorer_of(data), name, forecasts, "--data", data, "--json", result]
        subprocess.run(judge, check=True, stdout=subprocess.DEVNULL)
        scored = pd.DataFrame(json.loads(result.read_text()))
        scored = scored.merge(held_spans(forecasts, SETTINGS[name].place), on="task")
    made = {"revision": revision(), "versions": package_versions(), "cpu_seconds": seconds}
    return made | {"seed": seed, "scores": scored.to_dict("records")}


def revision() -> str | None:
    "As `git_revision`; what this script itself writes is no change of the source."
    told = git_revision()
    written = [f":(exclude){path}" for path in ("benchmarks/results", "README.md")]
    status = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", *written]
    if told and not subprocess.run(status, cwd=ROOT, check=True, capture_output=True).stdout:
        return told.removesuffix("-dirty")
    return told


def computing() -> float:
    "Processor seconds that programs started here have used so far."
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(used.ru_utime + used.ru_stime, 1)


def kept_file(name: str, horizon: int, seed: int) -> Path:
    "Where the result of a run is kept."
    return RESULTS / f"{name}_{horizon}_{seed}.json"


def kept_or_run(name: str, data: Path, horizon: int, seed: int, again: bool) -> dict:
    "The result that is kept, else a new one, kept from now on."
    file = kept_file(name, horizon, seed)
    if file.exists() and not again:
        print(f"{file.relative_to(ROOT)} is there", file=sys.stderr, flush=True)
        return json.loads(file.read_text())
    made = run(name, data, horizon, seed, [])
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(made, indent=1))
    part.rename(file)
    return made


def held_spans(forecasts: Path, place: Place) -> pd.DataFrame:
    "Per task: the smallest and the largest share [%] that the mixture's 80 % interval holds in an hour, season or horizon."
    table = read_forecasts(forecasts, place=place)
    rows = score_rows(table[table["model"] == "moe"].reset_index(drop=True), place)
    cuts = [coverage_table(rows, place, by) for by in ("hour", "season", "horizon")]
    shares = pd.concat(cuts).groupby("task")["cover80"]
    return pd.DataFrame({"least80": shares.min(), "most80": shares.max()}).reset_index()


def scorer_of(data: Path) -> Path:
    "Where the scorer of a folder `shared/data/load` lies."
    return data.resolve().parents[1] / "score" / "score_load.py"


def present(names: list[str], data: Path) -> Iterator[str]:
    "The sets that are there; the others are named and left out."
    for name in names:
        if (data / f"{name}.parquet").is_file():
            yield name
        else:
            print(f"{name}: left out, {data / name}.parquet is not there", file=sys.stderr)


def parser_of_sets(
    doc: str, names: Collection[str], default: Sequence[str] = ()
) -> argparse.ArgumentParser:
    "Options that benchmarks on public loads share: which sets, the seed, and where the sets are."

    def known(name: str) -> str:
        if name not in names:
            raise argparse.ArgumentTypeError(f"no set {name!r}: use any of {', '.join(names)}")
        return name

    shared = Path(os.environ.get("SMARTGRID_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    told = f"of {', '.join(names)}; default: {' '.join(default or ['all'])}"
    chosen = list(default or names)
    parser.add_argument("sets", nargs="*", default=chosen, type=known, metavar="SET", help=told)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=shared / "data" / "load", metavar="FOLDER")
    return parser


# Arranging


def row_of(name: str, task: str, made: list[dict]) -> list[str]:  # one result for each seed
    "One line of the table."
    measure = "WAPE" if task == "w1" else SETTINGS[name].error
    scored = pd.concat([pd.DataFrame(one["scores"]).assign(seed=one["seed"]) for one in made])
    by_seed = scored.pivot(index="seed", columns="model", values=measure)
    mean, mixture = by_seed.mean(), scored[scored["model"] == "moe"]
    experts = mean[mean.index.isin(EXPERTS)]
    shown = [f"{mean[m]:.3f}" for m in ("persistence", "seasonal_naive", "baseline", "lightgbm")]
    spread = (
        f"{by_seed['moe'].min():.3f}–{by_seed['moe'].max():.3f}" if len(by_seed) > 1 else "one seed"
    )
    held = [f"{mixture[column].mean():.1f}" for column in ("cover80", "cover95")]
    span = f"{mixture['least80'].min():.1f}–{mixture['most80'].max():.1f}"
    minutes = sum(one["cpu_seconds"] for one in made) / 60 / len(made)
    revisions = ", ".join(sorted({f"`{short(one['revision'])}`" for one in made}))
    return [
        name, task, measure, str(len(by_seed)), *shown, f"{experts.min():.3f} ({experts.idxmin()})",
        f"**{mean['moe']:.3f}**", spread, f"{mean['moe'] / mean['lightgbm']:.3f}", *held, span,
        f"{minutes:.0f}", revisions,
    ]  # fmt: skip


def short(revision: str | None) -> str:
    "Seven digits, and whether something was not committed."
    return revision.replace(revision[7:40], "") if revision else "no git"


def markdown(rows: list[list[str]], made: list[dict], extra: list[str]) -> str:
    "The table, and what it was made with."
    lines = [HEADER, ["---"] * len(HEADER), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    versions = {", ".join(f"{k} {v}" for k, v in one["versions"].items()) for one in made}
    command = " ".join(["python benchmarks/forecasts.py", *extra])
    return f"{table}\n\nMade by `{command}`, with {'; '.join(sorted(versions))}.\n"


def write_readme() -> None:
    "Put the table of all that is kept between its marks in README.md."
    rows, made = [], []
    for name, horizon in jobs(list(SETTINGS), list(TASKS)):
        files = sorted(RESULTS.glob(f"{name}_{horizon}_*.json"))
        if now := [json.loads(file.read_text()) for file in files]:
            made += now
            rows.append(row_of(name, TASKS[horizon], now))
    path = ROOT / "README.md"
    before, rest = path.read_text().split(MARKS[0])
    table = markdown(rows, made, [])
    path.write_text(f"{before}{MARKS[0]}\n{table}{MARKS[1]}{rest.split(MARKS[1])[1]}")


def jobs(names: list[str], horizons: list[int]) -> Iterator[tuple[str, int]]:
    "Sets and the horizons they are judged at."
    for name in names:
        judged = SETTINGS[name].horizons.split(",")
        yield from ((name, horizon) for horizon in horizons if str(horizon) in judged)


def parse() -> tuple[argparse.Namespace, list[str]]:
    "Own options, and those behind `--`."
    shared = Path(os.environ.get("SMARTGRID_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sets", nargs="*", metavar="SET", help=f"of {', '.join(SETTINGS)}; default: all"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--horizons", type=int, nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--again", action="store_true", help="make runs anew that are kept")
    parser.add_argument("--table", action="store_true", help="make no run, arrange what is kept")
    parser.add_argument("--data", type=Path, default=shared / "data" / "load", metavar="FOLDER")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    parser.add_argument(
        "--readme", action="store_true", help="write all that is kept into README.md"
    )
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    options, extra = parser.parse_args(words[:end]), words[end + 1 :]
    unknown = [name for name in options.sets if name not in SETTINGS]
    if unknown:
        parser.error(f"no set {unknown[0]!r}: use any of {', '.join(SETTINGS)}")
    if extra and options.readme:
        parser.error("a run with options of its own is not kept: leave out --readme")
    return options, extra


def results(
    name: str, horizon: int, options: argparse.Namespace, extra: list[str]
) -> list[dict]:  # one for each seed, fewer with `--table`
    "What is kept or made of one set and horizon."
    if options.table:
        files = [kept_file(name, horizon, seed) for seed in options.seeds]
        return [json.loads(file.read_text()) for file in files if file.exists()]
    if extra:
        return [run(name, options.data, horizon, seed, extra) for seed in options.seeds]
    return [kept_or_run(name, options.data, horizon, s, options.again) for s in options.seeds]


def check(options: argparse.Namespace) -> None:
    "Leave when there is nothing to run with."
    if not scorer_of(options.data).is_file():
        print(
            f"left out: no scorer {scorer_of(options.data)}; name its folder with SMARTGRID_SHARED",
            file=sys.stderr,
        )
        sys.exit(0)
    if find_spec("lightgbm") is None:
        sys.exit("LightGBM is not installed: pip install -e '.[lightgbm]'")


def main() -> int:
    "All sets, one line per task; the table grows in the file while the script runs."
    options, extra = parse()
    names = options.sets or list(SETTINGS)
    if not options.table:
        check(options)
        names = list(present(names, options.data))
    rows, made = [], []
    for name, horizon in jobs(names, options.horizons):
        if now := results(name, horizon, options, extra):
            made += now
            rows.append(row_of(name, TASKS[horizon], now))
            if options.out:
                options.out.write_text(markdown(rows, made, sys.argv[1:]))
    if not rows:
        sys.exit("nothing to show: no run is kept, or no data set is there")
    if options.readme:
        write_readme()
    print(markdown(rows, made, sys.argv[1:]), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
