"""Prove that the package is what the notebooks say: exporting them again changes nothing.

Run as a program (make sync) or from pytest; the export goes to a temporary folder, the work tree stays as it is.
"""

import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "smartgrid_ai"


def stale_modules() -> list[str]:
    "Modules that differ from a fresh export of the notebooks, or have no notebook."
    from nbdev.export import nb_export

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        shutil.copytree(ROOT / "nbs", copy / "nbs")
        shutil.copy(ROOT / "pyproject.toml", copy)
        for package in (ROOT / PACKAGE).rglob("__init__.py"):
            target = copy / package.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(package, target)
        for notebook in sorted((copy / "nbs").glob("*.ipynb")):
            nb_export(notebook, copy / PACKAGE)
        fresh, here = (_modules(root / PACKAGE) for root in (copy, ROOT))
    return sorted(name for name in fresh.keys() | here.keys() if fresh.get(name) != here.get(name))


def _modules(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*.py") if not path.name.startswith("_"))
    return {str(path.relative_to(folder)): path.read_text() for path in files}


if __name__ == "__main__":
    stale = stale_modules()
    for name in stale:
        print(
            f"{PACKAGE}/{name} is not what its notebook exports: edit the notebook and run make export"
        )
    sys.exit(bool(stale))
