"""What several tests share."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile(
    "any machine", deadline=None
)  # how quick a test is depends on where it runs
settings.load_profile("any machine")

# A shell that puts the tests into the background lets them ignore Ctrl-C, and with them what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    "Folder of public data sets that lie beside the project, never in it."
    folder = Path(os.environ.get("SMARTGRID_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no public data sets in {folder}: set SMARTGRID_SHARED to their folder")
    return folder
