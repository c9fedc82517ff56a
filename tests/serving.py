"""A registry of small but real models, and the real server as a subprocess."""

import os
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import httpx
import psutil

from smartgrid_ai.anomaly.ensemble import AnomalyEnsemble
from smartgrid_ai.data.simulate import SIMULATED_PLACE, simulate
from smartgrid_ai.features import FEATURE_NAMES, make_features
from smartgrid_ai.forecast.forecaster import Forecaster
from smartgrid_ai.registry import Registry
from smartgrid_ai.windows import chronological_split

PLACE = {"timezone": SIMULATED_PLACE.timezone, "country": SIMULATED_PLACE.country}
SCRIPT = """
import sys
from smartgrid_ai.readings import SmartgridError
from smartgrid_ai.serve.app import load_settings, serve
try:
    sys.exit(serve(load_settings(), announce=lambda line: print(line, flush=True)))
except SmartgridError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


@cache
def shop():
    readings = simulate("small", faults={})  # four trees cannot tell a fault from a load
    readings = readings[readings["meter_id"] == "shop-1"].iloc[:4800]
    return readings.reset_index(drop=True)


def train(root: Path) -> Registry:
    "Publish a tree baseline, mixtures of the next hour and of the day ahead, and an anomaly ensemble, each barely trained."
    registry, readings = Registry(root), shop()
    split = chronological_split(readings, SIMULATED_PLACE)
    table = make_features(readings, SIMULATED_PLACE)
    rows = table[list(FEATURE_NAMES)].to_numpy(float)
    example = rows[~table["warm_up"]][-1].tolist()
    about = {"features": list(FEATURE_NAMES), "metrics": {"mape": 1.0}, "data": {"rows": 4800}}
    small = {"epochs": 1, "batches": 2, "trees": 4, "experts": ("gru", "attention", "tree")}
    for family in ("baseline", "moe"):
        model = Forecaster(family, SIMULATED_PLACE, **small).fit(readings, split)
        manifest = about | {"family": "forecast", "parameters": {"example_features": example}}
        registry.publish(family, model.save, manifest)
    ahead = Forecaster("moe", SIMULATED_PLACE, horizon=24, **small | {"experts": ("dense",)})
    manifest = about | {"family": "forecast", "parameters": {"horizon": 24}}
    registry.publish("moe_24", ahead.fit(readings, split).save, manifest)
    ensemble = AnomalyEnsemble().fit(rows[400:1400])
    manifest = about | {"family": "anomaly", "parameters": {"place": PLACE}}
    registry.publish("anomaly", ensemble.save, manifest)
    return registry


def free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port >= 1024:
            return port


class Service:
    "The service as an operator starts it; every process it makes is known, and must be gone at the end."

    def __init__(self, model_dir: Path, log: Path, **environment: str):
        self.port, self.log = free_port(), log
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SMARTGRID_")}
        variables = {"API_PORT": str(self.port), "MODEL_DIR": str(model_dir)} | environment
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env=clean | variables,
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.seen: dict[int, psutil.Process] = {}
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    def look(self) -> list[psutil.Process]:
        main = psutil.Process(self.process.pid)
        family = [main, *main.children(recursive=True)]
        self.seen |= {process.pid: process for process in family}
        return family

    def worker(self) -> psutil.Process:
        return next(p for p in self.look() if "spawn_main" in " ".join(p.cmdline()))

    def helper(self, part: str) -> psutil.Process:
        "The manager or the API process: forked from the main process, in this order."
        main, *others = self.look()
        forked = [p for p in others if p.cmdline() == main.cmdline()]
        manager, api = sorted(forked, key=lambda process: process.create_time())
        return {"manager": manager, "API": api}[part]

    def wait_ready(self, seconds: float = 60) -> "Service":
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if self.client.get("/readyz").status_code == 200:
                    self.look()
                    return self
            except httpx.TransportError:
                time.sleep(0.1)
            time.sleep(0.1)
        raise AssertionError(f"not ready after {seconds} s: {self.log.read_text()}")

    def left(self, seconds: float = 15) -> list[str]:
        "Processes of the service that are still running."
        _, alive = psutil.wait_procs(list(self.seen.values()), timeout=seconds)
        return [" ".join(p.cmdline()) for p in alive if p.status() != psutil.STATUS_ZOMBIE]

    def end(self, number: int = signal.SIGTERM) -> int:
        "Stop the service; its exit code, once no process is left."
        self.client.close()
        if self.process.poll() is None:
            self.look()
            self.process.send_signal(number)
        code = self.process.wait(30)
        assert self.left() == [], self.log.read_text()
        return code

    def clean_up(self) -> None:
        for process in self.seen.values():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
