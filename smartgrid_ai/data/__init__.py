"""Readings: simulated, read from files, validated and cleaned."""
