"""What it takes to reach a validation error: sequences, windows, boosted trees.

    python benchmarks/training.py [--target 0.76] [--limit 600] [--data FILE] [--only NAME ...]

One hour ahead on Victoria's load, trained from 2012 on, judged on October to December 2013 (the validation part; the test year
is not touched). Three contestants have the same rows, the same residual target and the same split, and each runs in
a process of its own on one thread until its WAPE on the validation hours is no more than `--target` percent, or `--limit` CPU-seconds
are over, which is said and not hidden:

- `sequences`: the GRU expert as the package trains it, chunks of 192 hours with a loss at every hour;
- `windows`: the same network fed as tutorials do, a shuffled DataLoader of single windows of 168 hours and a loss at the last one;
- `lightgbm`: trees on the same encoded rows (extra `[lightgbm]`), learning rate 0.08 and 31 leaves, twenty at a time.

Counted are the CPU-seconds of training and of judging, not those of reading and encoding, which are the same for all, and the
peak memory of the whole process. Without the public data set the simulator's first meter takes its place.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from smartgrid_ai.data.simulate import SIMULATED_PLACE, simulate
from smartgrid_ai.data.sources import read_readings
from smartgrid_ai.forecast.expert import ExpertModule, expert_loss
from smartgrid_ai.forecast.forecaster import fit_path
from smartgrid_ai.forecast.gru import GRUNetwork
from smartgrid_ai.forecast.hourly import HourlyFrame
from smartgrid_ai.forecast.paths import new_path
from smartgrid_ai.forecast.wanted import Wanted, next_hours
from smartgrid_ai.readings import Place
from smartgrid_ai.windows import chronological_split

ROOT = Path(__file__).resolve().parents[1]
DATES = {"train_start": "2012-01-01", "val_start": "2013-10-01", "test_start": "2014-01-01"}
WINDOW, BATCH = 168, 64  # hours, windows


class Task:
    "Rows to learn from, and the error on the rows that judge."

    def __init__(self, data: Path):
        known = data.is_file()
        place = Place("Australia/Melbourne", "AU", "VIC") if known else SIMULATED_PLACE
        readings = read_readings(data, unit="MW", timezone=place.timezone) if known else simulate()
        if not known:
            readings = readings[readings["meter_id"] == readings["meter_id"].iloc[0]]
        split = chronological_split(readings, place, **(DATES if known else {}))
        seen = readings[readings["timestamp"] < split.test_start].reset_index(drop=True)
        path = new_path(1, place)
        self.name = data.stem if known else "the simulator's first meter"
        self.frame: HourlyFrame = fit_path(path, seen, split)
        stamps = self.frame.hours.timestamp
        self.train, self.validation = (split.part(stamps, n) for n in ("train", "validation"))
        self.wanted: Wanted = next_hours(self.validation)

    def error(self, residual: np.ndarray) -> float:
        "WAPE of the validation hours, %, from (n,) residuals in sizes."
        anchor, scale = self.frame.anchor_and_scale(self.wanted)
        load = self.frame.hours.load[self.wanted.target]
        seen = np.isfinite(load)
        return 100 * np.abs(anchor + scale * residual - load)[seen].sum() / load[seen].sum()

    def network_error(self, network: torch.nn.Module) -> float:
        "The same of a network."
        network.eval()
        return self.error(self.frame.outputs({"own": network}, self.wanted)["own"][:, 0])


# Contestants: each yields its error now and then


def sequences(task: Task) -> Iterator[float]:
    "Chunks with a loss at every hour, one-cycle rate over twelve epochs, as the package trains."
    data = task.frame.data(task.train, task.validation, None, 0)
    yield from descend(task, data.train_dataloader, len(data.train_dataloader()))


def windows(task: Task) -> Iterator[float]:
    "Single windows, collated one by one, with a loss at their last hour."
    table = task.frame.sequences()
    ends = np.flatnonzero(task.train & (table.weight.numpy() > 0))
    ends = ends[ends >= WINDOW - 1]

    class Windows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(ends)

        def __getitem__(self, number: int):
            last = int(ends[number])
            rows = slice(last - WINDOW + 1, last + 1)
            weight = torch.zeros(WINDOW).index_fill(0, torch.tensor(WINDOW - 1), 1.0)
            return table.inputs[rows], table.target[rows], weight

    loader = torch.utils.data.DataLoader(Windows(), BATCH, shuffle=True)
    yield from descend(task, lambda: loader, len(loader), every=25)


def descend(task: Task, batches: Callable, steps: int, every: int | None = None) -> Iterator[float]:
    "AdamW with the rate of the package; the error after every epoch, or every so many steps."
    torch.manual_seed(0)
    network = GRUNetwork(*task.frame.sizes)
    module = ExpertModule(network)
    optimizer = torch.optim.AdamW(network.parameters(), module.learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, module.learning_rate, total_steps=12 * steps
    )
    done = 0
    for _ in range(12):
        network.train()
        for inputs, target, weight in batches():
            loss, _ = expert_loss(network(inputs), target, weight)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done += 1
            if every and done % every == 0:
                yield task.network_error(network)
                network.train()
        yield task.network_error(network)


def lightgbm(task: Task) -> Iterator[float]:
    "Twenty trees at a time."
    import lightgbm as library

    rows, judged = task.frame.rows(next_hours(task.train)), task.frame.rows(task.wanted)
    rows = rows.take(rows.observed)
    settings = {"objective": "l2", "learning_rate": 0.08, "num_leaves": 31, "num_threads": 1}
    settings |= {"verbose": -1, "seed": 0}
    data = library.Dataset(rows.inputs, rows.target, weight=rows.weight(True), free_raw_data=False)
    booster = library.Booster(settings, data)
    for tree in range(3000):
        booster.update()
        if tree % 20 == 19:
            yield task.error(booster.predict(judged.inputs))


CONTESTANTS = {"sequences": sequences, "windows": windows, "lightgbm": lightgbm}


def run(name: str, options: argparse.Namespace) -> None:
    "In a process of its own: one contestant, one line of JSON."
    torch.set_num_threads(1)
    task = Task(options.data)
    begun, best, reached = time.process_time(), np.inf, None
    for error in CONTESTANTS[name](task):
        used = time.process_time() - begun
        best = min(best, error)
        if error <= options.target:
            reached = used
        if reached or used > options.limit:
            break
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    told = {"name": name, "task": task.name, "reached": reached, "best": best, "memory": memory}
    print(json.dumps(told | {"used": time.process_time() - begun}))


def line(told: dict, first: float | None) -> str:
    "One row of the table."
    if told["reached"]:
        ratio = f"{told['reached'] / first:.1f} ×" if first else "–"
        took = f"{told['reached']:.1f}"
    else:
        ratio, took = "–", f"not in {told['used']:.0f} (best {told['best']:.3f} %)"
    return f"{told['name']:<12}{took:>28}{ratio:>10}{told['memory']:>12.2f}"


def parse() -> argparse.Namespace:
    "Options."
    shared = Path(os.environ.get("SMARTGRID_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", type=float, default=0.76, help="WAPE of validation, %%")
    parser.add_argument("--limit", type=float, default=600, metavar="SECONDS", help="of computing")
    parser.add_argument("--data", type=Path, default=shared / "data" / "load" / "vic_elec.parquet")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--inside", choices=CONTESTANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    "All contestants, one after the other."
    options = parse()
    if options.inside:
        run(options.inside, options)
        return 0
    first = None
    for name in options.only:
        if name == "lightgbm" and find_spec("lightgbm") is None:
            print("lightgbm: left out, it is not installed (pip install 'smartgrid_ai[lightgbm]')")
            continue
        words = ["--inside", name, "--target", options.target, "--limit", options.limit]
        words = [sys.executable, __file__, *map(str, words), "--data", str(options.data)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr}")
        told = json.loads(done.stdout.splitlines()[-1])
        if first is None:
            print(f"{told['task']}: validation WAPE of {options.target} %, one thread")
            print(f"{'':<12}{'CPU-seconds':>28}{'ratio':>10}{'peak GiB':>12}")
            first = told["reached"]
        print(line(told, first), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
