"""Anomaly detectors and their ensemble."""
