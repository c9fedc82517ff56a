"""What several tests share."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# How quick a test is depends on where it runs. The same code gets the same verdict; who looks for new
# counterexamples says so: pytest --hypothesis-profile=search.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile("same")

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


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    "A registry of small models that are served; whoever changes one copies it first."
    from serving import train

    return train(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def few_rows():
    "Trees of days and weeks ahead learn from few forecasts, so that a training takes seconds."
    from smartgrid_ai.forecast import experts, families

    with pytest.MonkeyPatch.context() as patch:
        for room, name in (
            (families, "TREE_ROWS"),
            (experts, "TREE_ROWS"),
            (experts, "SPREAD_ROWS"),
        ):
            patch.setattr(room, name, 30_000)
        yield
