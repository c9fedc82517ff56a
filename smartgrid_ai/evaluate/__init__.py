"""Metrics, backtests and pictures."""
