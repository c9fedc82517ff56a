"""Artefacts for the reports, made from simulated readings with forecasts and detectors of a few lines each.

The rules are simple but real: nothing here is drawn to look good, and nothing looks at the hour it forecasts.
"""

import numpy as np
import pandas as pd

from smartgrid_ai.artefacts import AnomalyArtefacts, ForecastArtefacts, describe_run
from smartgrid_ai.data.simulate import SIMULATED_PLACE, floor, simulate
from smartgrid_ai.evaluate.metrics import forecast_metrics
from smartgrid_ai.evaluate.style import civil_parts

LEVELS = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)


def lags(readings):
    "Lagged loads of each meter; simulated readings have no missing rows."
    load = readings.groupby("meter_id")["consumption"]
    return pd.DataFrame({f"lag_{k}": load.shift(k) for k in (1, 24, 25, 168, 169)})


def rules(lag):
    "Six ways to guess the next hour, standing in for the six experts."
    day, week = lag["lag_24"] - lag["lag_25"], lag["lag_168"] - lag["lag_169"]
    return {
        "gru": lag["lag_1"] + day,
        "cnn_lstm": lag["lag_1"] + week,
        "transformer": lag["lag_24"],
        "attention": (lag["lag_24"] + lag["lag_168"]) / 2,
        "dense": lag["lag_1"] + (day + week) / 2,
        "tree": (lag["lag_1"] + lag["lag_24"]) / 2,
    }


def gate(readings, guesses, training):
    "Weights per hour of day: the inverse of each rule's training error, to the third power."
    hour = civil_parts(readings["timestamp"], SIMULATED_PLACE)["hour"]
    weights = {}
    for name, guess in guesses.items():
        miss = (guess - readings["consumption"]).abs()[training]
        weights[name] = hour.map(1 / miss.groupby(hour[training]).mean() ** 3)
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def mixture(lag, weights):
    return sum(weights[name] * guess for name, guess in rules(lag).items())


def with_quantiles(table, readings, training):
    "Quantiles of each meter's training residuals around the prediction."
    residual = (readings["consumption"] - table["prediction"])[training]
    for level in LEVELS:
        width = residual.groupby(readings["meter_id"]).quantile(level)
        table[f"q{level:g}"] = table["prediction"] + readings["meter_id"].map(width)
    return table


def forecast_artefacts(preset="small", share=0.7):
    readings = simulate(preset)
    start = readings["timestamp"].min() + share * (
        readings["timestamp"].max() - readings["timestamp"].min()
    )
    start = start.ceil("h")
    training, lag = readings["timestamp"] < start, lags(readings)
    weights = gate(readings, rules(lag), training)
    guesses = {
        "persistence": lag["lag_1"],
        "seasonal_naive": lag["lag_168"],
        **rules(lag),
        "moe": mixture(lag, weights),
    }
    tables = []
    for model, guess in guesses.items():
        table = readings[["meter_id", "timestamp"]].assign(
            model=model, task="h1", horizon=1, prediction=guess, actual=readings["consumption"]
        )
        table["issued"] = table["timestamp"]
        table = with_quantiles(table, readings, training)
        if model == "moe":
            table = table.assign(**{f"gate_{name}": weight for name, weight in weights.items()})
        tables.append(table[~training])
    forecasts = pd.concat(tables, ignore_index=True)
    healthy = forecasts.merge(readings.loc[readings["fault"] == "", ["meter_id", "timestamp"]])
    known = floor(readings, start) | {
        "models": forecast_metrics(healthy).set_index("model")["wape"].to_dict()
    }
    return ForecastArtefacts(
        forecasts=forecasts,
        metrics=forecast_metrics(forecasts, readings[training]).assign(task="h1"),
        weather="none",
        place=SIMULATED_PLACE,
        split={"test_start": start},
        floor=known,
        importance=importance(readings, lag, weights, ~training),
        provenance=describe_run(readings, f"simulator, preset {preset}", {"seed": 0, "horizon": 1}),
    )


def importance(readings, lag, weights, test):
    "Permutation importance of the lags for the mixture, on test hours."
    random, rows = np.random.default_rng(0), []
    base = (mixture(lag, weights) - readings["consumption"])[test].abs().mean()
    for name in lag:
        shuffled = lag[test].assign(**{name: random.permutation(lag.loc[test, name])})
        worse = (
            (
                mixture(shuffled, {k: w[test] for k, w in weights.items()})
                - readings.loc[test, "consumption"]
            )
            .abs()
            .mean()
        )
        rows.append({"feature": name, "increase": worse / base - 1})
    return pd.DataFrame(rows)


def anomaly_artefacts(preset="small", share=0.7, labelled=True):
    "Alarms of three rules and their vote; the default says what it expected and, oracle in part, which kind."
    readings = simulate(preset)
    start = readings["timestamp"].quantile(share).ceil("h")
    training, lag = readings["timestamp"] < start, lags(readings)
    parts = {
        "step": (readings["consumption"] - lag["lag_1"], lag["lag_1"]),
        "week": (readings["consumption"] - lag["lag_168"], lag["lag_168"]),
    }
    size = {}
    for name, (gap, _) in parts.items():
        spread = gap.abs()[training].groupby(readings["meter_id"]).median()
        size[name] = (gap.abs() / readings["meter_id"].map(spread)).fillna(0)
    detectors = {
        "isolation_forest": size["step"],
        "autoencoder": size["week"],
        "default": sum(size.values()) / 2,
        "vote": pd.concat(size.values(), axis=1).min(axis=1),
    }
    frame = readings[["meter_id", "timestamp"]].rename(columns={"meter_id": "series"})
    scores = []
    for model, strength in detectors.items():
        alarm = strength > strength[training].quantile(0.99)
        scores.append(
            frame.assign(model=model, score=strength / (1 + strength), alarm=alarm)[~training]
        )
    scores = pd.concat(scores, ignore_index=True)
    own = scores["model"] == "default"
    known = frame.assign(expected=lag["lag_168"], scale=60.0, kind=readings["fault"].where(readings["fault"] != "", "spike"))  # fmt: skip
    known = scores[["series", "timestamp"]].merge(known, how="left")
    scores = scores.join(known[["expected", "scale"]].where(own))
    scores["kind"] = known["kind"].where(own & scores["alarm"], "")
    scores["kind_probability"] = np.where(scores["kind"] == "", np.nan, 0.8)
    total = sum(size.values()).clip(lower=1e-9)
    contributions = [
        frame.assign(
            feature=name, value=readings["consumption"], expected=expected, share=size[name] / total
        )[~training]
        for name, (_, expected) in parts.items()
    ]
    columns = ["meter_id", "timestamp", "consumption", *(["fault"] if labelled else [])]
    return AnomalyArtefacts(
        scores=scores,
        readings=readings.loc[~training, columns],
        place=SIMULATED_PLACE,
        contributions=pd.concat(contributions, ignore_index=True),
        provenance=describe_run(readings, f"simulator, preset {preset}", {"contamination": 0.01}),
    )
