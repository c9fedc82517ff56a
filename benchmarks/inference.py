"""How long does one forecast take with PyTorch, with ONNX Runtime, and with int8, and how large are the files?

    python benchmarks/inference.py [--model FOLDER] [--hours 1 48] [--rounds 30]

Without `--model`, experts of their usual size with random weights are timed: what they say does not matter for how long it
takes. With it, the networks of a saved forecaster are (a folder such as models/moe/1.0.0). Every file is compared with
PyTorch before anything is timed. All run on one thread, on a single row as the service gets it and on 256 rows, each alone
(hours = 1) and with the hours before it (hours = 48); networks of the day ahead, named with a 24, always read a week and
say 24 hours. Rounds are interleaved, so that a disturbance of the machine meets
all alike; a round takes the mean of as many calls as fit into 5 ms, and the median of the rounds counts. PyTorch runs in
`inference_mode`. A ratio above one means that much faster than PyTorch.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import torch
from torch import nn

from smartgrid_ai.encoder import PAST_CHANNELS
from smartgrid_ai.export import quantise
from smartgrid_ai.forecast.experts import EXPERTS, NETWORKS
from smartgrid_ai.forecast.forecaster import load_forecaster
from smartgrid_ai.forecast.gate import GateNetwork
from smartgrid_ai.forecast.wanted import CIRCUMSTANCES
from smartgrid_ai.portable import OnnxNetwork, example_inputs, export_network

WIDTH, AHEAD_WIDTH = (
    77,
    81,
)  # columns of an encoded row with weather, and of a known hour of the days ahead
SECONDS = 0.005  # per round and candidate


def networks(folder: str | None) -> dict[str, nn.Module]:
    "What is timed: a saved forecaster's networks, or new ones."
    if folder:
        mixture = load_forecaster(Path(folder)).family.mixture
        return {**mixture.networks, "gate": mixture.gate}
    torch.manual_seed(0)
    made = {name: near(WIDTH).eval() for name, (near, _) in NETWORKS.items()}
    made |= {f"{n} 24": far(AHEAD_WIDTH, PAST_CHANNELS).eval() for n, (_, far) in NETWORKS.items()}
    return made | {"gate": GateNetwork(CIRCUMSTANCES, len(EXPERTS)).eval()}


def candidates(name: str, network: nn.Module, folder: Path) -> tuple[dict[str, Callable], dict]:
    "Three ways to run a network, and what is known of its files."
    path = folder / f"{name}.onnx"
    exported = export_network(network, path)
    small = quantise(path)
    facts = {"kB": exported.size_bytes / 1000, "int8 kB": small.stat().st_size / 1000}
    facts |= {"off by": exported.difference, "inputs": exported.inputs}
    return {"torch": network, "onnx": OnnxNetwork(path), "int8": OnnxNetwork(small)}, facts


def seconds(function: Callable, inputs: list[torch.Tensor]) -> float:
    "Mean time of one call, over as many as fit into a round."
    calls, start = 0, time.perf_counter()
    while (taken := time.perf_counter() - start) < SECONDS or not calls:
        function(*inputs)
        calls += 1
    return taken / calls


@torch.inference_mode()
def measure(
    functions: dict[str, Callable], inputs: list[torch.Tensor], rounds: int
) -> pd.Series:  # s per call, median
    "Interleaved rounds, after one to warm up."
    taken = [
        {name: seconds(function, inputs) for name, function in functions.items()}
        for _ in range(rounds + 1)
    ]
    return pd.DataFrame(taken[1:]).median()


def timed(name: str, network: nn.Module, folder: Path, hours: list[int], rounds: int) -> list[dict]:
    "One line of the table per shape."
    functions, facts = candidates(name, network, folder)
    rows = []
    for length in hours if any("hours" in axes for axes in facts.pop("inputs").values()) else [24]:
        for batch in (1, 256):
            shapes = example_inputs(network)(batch, length).values()
            inputs = [torch.randn_like(v) if v.is_floating_point() else v for v in shapes]
            median = measure(functions, inputs, rounds)
            row = {"network": name, "hours": length, "rows": batch}
            row |= {f"{way} µs": 1e6 * median[way] for way in functions}
            row |= {f"{way} x": median["torch"] / median[way] for way in ("onnx", "int8")}
            rows.append(row | facts)
    return rows


def main() -> int:
    "Export, compare, measure, print."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", metavar="FOLDER", help="a saved forecaster")
    parser.add_argument("--hours", type=int, nargs="+", default=[1, 48])
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, network in networks(options.model).items():
            rows += timed(name, network, Path(folder), options.hours, options.rounds)
    table = pd.DataFrame(rows)
    styles = {c: "{:,.2f}".format for c in table if c.endswith(" x")}
    styles |= {c: "{:,.0f}".format for c in table if c.endswith((" µs", "kB"))}
    styles["off by"] = "{:.0e}".format
    print(table.to_string(index=False, formatters=styles))
    return 0


if __name__ == "__main__":
    sys.exit(main())
