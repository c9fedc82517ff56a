"""How long does the service take for an answer, and how much computing does it cost?

    python benchmarks/service.py [--models FOLDER] [--rounds 30]

Without `--models`, mixtures of their usual size for an hour, a day and a week ahead are trained for a moment: what they say does not
matter for how long it takes. The real server runs with one worker, and one client asks one thing at a time; the calls are interleaved, so that a disturbance of the
machine meets all alike. The floor is `/livez`, which runs no model and meets no worker. Readings are sixty days of one simulated meter with
its temperature. *CPU ms* is the computing of all processes of the service for one call.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import httpx
import pandas as pd
import psutil

from smartgrid_ai.data.simulate import SIMULATED_PLACE, simulate
from smartgrid_ai.features import FEATURE_NAMES
from smartgrid_ai.forecast.forecaster import Forecaster
from smartgrid_ai.registry import Registry
from smartgrid_ai.router import REACHES, bundle_name
from smartgrid_ai.serve.schemas import EXAMPLE_FEATURES
from smartgrid_ai.windows import chronological_split

PORT = 8765
READINGS = 1440  # hours sent with a request


def publish(folder: Path, readings: pd.DataFrame) -> None:
    "Mixtures that have hardly learned anything."
    split = chronological_split(readings, SIMULATED_PLACE)
    about = {"family": "forecast", "features": list(FEATURE_NAMES), "metrics": {}}
    about |= {"data": {}, "parameters": {}}
    for horizon in REACHES:
        model = Forecaster("moe", SIMULATED_PLACE, horizon=horizon, epochs=1, batches=2)
        name = bundle_name("moe", horizon)
        Registry(folder).publish(name, model.fit(readings, split).save, about)


def calls(readings: pd.DataFrame) -> dict[str, tuple[str, dict | None]]:
    "What is asked: path and body; no body means GET."
    sent = readings[["timestamp", "consumption", "temperature"]].tail(READINGS)
    sent = sent.assign(timestamp=[stamp.isoformat() for stamp in sent["timestamp"]])
    rows = sent.astype(object).where(sent.notna(), None).to_dict(orient="records")
    asked = {"readings": rows, "meter_id": readings["meter_id"].iloc[0]}
    row = {"features": EXAMPLE_FEATURES}
    return {
        "/livez": ("/livez", None),
        "/predict/single": ("/predict/single", row),
        "/predict/batch, 1,000 rows": ("/predict/batch", {"samples": [row] * 1000}),
        **{f"/forecast, {h} h": ("/forecast", asked | {"horizon": h}) for h in REACHES},
        "/forecast, naive": ("/forecast", asked | {"horizon": 24, "tier": "naive"}),
    }


def computed(service: psutil.Process) -> float:
    "CPU-seconds of the service until now."
    family = [service, *service.children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in family)


def measure(service: psutil.Process, asked: dict, rounds: int) -> pd.DataFrame:
    "Seconds and CPU-seconds of each call in each round."
    taken = []
    with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=60) as client:
        for number in range(rounds + 1):
            for name, (path, body) in asked.items():
                before, begun = computed(service), time.perf_counter()
                answer = client.get(path) if body is None else client.post(path, json=body)
                seconds = time.perf_counter() - begun
                answer.raise_for_status()
                row = {"call": name, "ms": 1000 * seconds, "round": number}
                taken.append(row | {"cpu": 1000 * (computed(service) - before)})
    return pd.DataFrame(taken).query("round > 0")


def run(folder: Path, asked: dict, rounds: int) -> pd.DataFrame:
    "Start the server, ask, and end it."
    command = [str(Path(sys.executable).with_name("smartgrid")), "serve", "--models", str(folder)]
    with subprocess.Popen(
        [*command, "--port", str(PORT)], stdout=subprocess.PIPE, text=True
    ) as service:
        try:
            if not re.search("serving on", service.stdout.readline()):
                raise SystemExit("the service did not start: its error stands above")
            return measure(psutil.Process(service.pid), asked, rounds)
        finally:
            service.terminate()


def main() -> int:
    "Train, serve, ask, print."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="bundles to serve")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    readings = simulate("small")
    readings = readings[readings["meter_id"] == "shop-1"].reset_index(drop=True)
    with tempfile.TemporaryDirectory() as folder:
        if options.models is None:
            publish(Path(folder), readings)
        taken = run(options.models or Path(folder), calls(readings), options.rounds)
    by = taken.groupby("call", sort=False)
    table = pd.DataFrame({"ms": by["ms"].median(), "slowest ms": by["ms"].max()})
    table["CPU ms"] = by["cpu"].mean()
    table["x floor"] = table["ms"] / table["ms"].iloc[0]
    print(table.to_string(float_format="{:,.1f}".format))
    return 0


if __name__ == "__main__":
    sys.exit(main())
