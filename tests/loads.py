"""Small loads for tests: a daily rhythm with noise, several meters, gaps where asked for."""

import numpy as np
import pandas as pd


def readings(
    hours: int = 600,
    meters: int = 1,
    gaps: float = 0.0,  # share of missing values
    start: str = "2024-03-01",
    seed: int = 0,
    level: float = 500.0,  # W
    temperature: bool = True,
) -> pd.DataFrame:
    "Canonical readings."
    rng = np.random.default_rng(seed)
    clock = pd.date_range(start, periods=hours, freq="h", tz="UTC").as_unit("us")
    parts = []
    for meter in range(meters):
        size = level * (1 + meter)
        load = size * (1 + 0.4 * np.sin(2 * np.pi * (np.arange(hours) - 8) / 24)) + rng.normal(
            0, 0.05 * size, hours
        )
        load[rng.random(hours) < gaps] = np.nan
        part = pd.DataFrame({"meter_id": f"meter-{meter}", "timestamp": clock, "consumption": load})
        if temperature:
            part["temperature"] = (
                10 + 5 * np.sin(2 * np.pi * np.arange(hours) / 24) + rng.normal(0, 1, hours)
            )
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
