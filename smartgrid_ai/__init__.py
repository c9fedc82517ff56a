"""Short-term electricity load forecasting and anomaly detection."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("smartgrid_ai")
except PackageNotFoundError:  # imported from a checkout that was never installed
    __version__ = "0+unknown"
