"""A tidy table of forecasts for tests: two tasks, three models, known strengths and weaknesses."""

import numpy as np
import pandas as pd

from smartgrid_ai.readings import Place

MELBOURNE = Place("Australia/Melbourne", "AU", "VIC")
WIDTHS = {"q0.025": -1.96, "q0.1": -1.2816, "q0.5": 0.0, "q0.9": 1.2816, "q0.975": 1.96}
SIZES = {"moe": 0.02, "baseline": 0.03, "seasonal_naive": 0.06}  # typical miss, share of the load
EVENING = range(17, 21)  # hours in which the mixture is the worst of all


def forecasts(meters=3, days=60, tasks=("h1", "d1"), start="2024-06-30 14:00", sizes=None, seed=0):
    "Noise of 3 % on a daily curve; each model adds a miss of its own, which grows over the day ahead."
    random = np.random.default_rng(seed)
    hours = pd.date_range(start, periods=24 * days, freq="h", tz="UTC").as_unit("us")
    civil, parts = hours.tz_convert(MELBOURNE.timezone), []
    evening = civil.hour.isin(EVENING)
    for meter in range(meters):
        curve = 1000 * (2 + meter) * (1 + 0.4 * np.sin((civil.hour - 9) * np.pi / 12))
        frame = pd.DataFrame({"meter_id": f"m{meter}", "timestamp": hours})
        frame["actual"] = curve * (1 + random.normal(0, 0.03, len(hours)))
        frame["temperature"] = 12 + 6 * np.sin((civil.hour - 9) * np.pi / 12)
        for task in tasks:
            ahead = {"h1": 1, "d1": 24, "w1": 168}[task]
            horizon = np.arange(len(hours)) % ahead + 1
            for model, size in (sizes or SIZES).items():
                spread = size * curve * (1 + (horizon - 1) / 24)
                spread = spread * np.where(evening & (model == "moe"), 4, 1)
                guess = curve + random.normal(0, 1, len(hours)) * spread
                total = np.sqrt(spread**2 + (0.03 * curve) ** 2)
                table = frame.assign(model=model, task=task, horizon=horizon, prediction=guess)
                table = table.assign(**{q: curve + z * 0.03 * curve for q, z in WIDTHS.items()})
                if model != "moe":
                    table = table.assign(**{q: guess + z * total for q, z in WIDTHS.items()})
                else:
                    share = 0.5 + 0.3 * np.sin(civil.hour / 4)
                    table = table.assign(gate_gru=share, gate_tree=1 - share)
                parts.append(table)
    table = pd.concat(parts, ignore_index=True)
    table["issued"] = table["timestamp"] - pd.to_timedelta(table["horizon"] - 1, unit="h")
    return table
