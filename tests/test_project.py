"""The promises the repository makes about itself."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from sync import stale_modules

ROOT = Path(__file__).parent.parent
PACKAGE = "smartgrid_ai"
NOTEBOOKS = sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))


def code(notebook: Path) -> str:
    cells = nbformat.read(notebook, as_version=4).cells
    return "\n".join(
        c.source for c in cells if c.cell_type == "code" and not c.source.startswith("%")
    )


def exported(notebook: Path) -> str:
    cells = nbformat.read(notebook, as_version=4).cells
    return "\n".join(c.source for c in cells if re.match(r"#\s?\| ?export", c.source))


def module(notebook: Path) -> str:
    return notebook.stem.split("_", 1)[1]


def imported_modules(source: str) -> list[str]:
    "Modules of the package that a source imports, in either form of the import statement."
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            found.append(node.module.removeprefix(f"{PACKAGE}."))
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            found += [
                name.removeprefix(f"{PACKAGE}.") for name in names if name.startswith(f"{PACKAGE}.")
            ]
    return found


ORDER = {module(notebook): int(notebook.name[:2]) for notebook in NOTEBOOKS}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_notebook_is_named_after_the_module_it_exports(notebook):
    assert re.search(r"^#\s?\| default_exp (\S+)$", code(notebook), re.M)[1] == module(notebook)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_notebook_imports_only_from_smaller_numbers(notebook):
    used = imported_modules(code(notebook))
    assert [
        name for name in used if ORDER[name] >= int(notebook.name[:2]) and name != module(notebook)
    ] == []


def test_every_module_has_its_notebook():
    paths = (p for p in (ROOT / PACKAGE).rglob("*.py") if not p.name.startswith("_"))
    modules = {
        str(path.relative_to(ROOT / PACKAGE).with_suffix("")).replace("/", ".") for path in paths
    }
    assert modules == set(ORDER)


def test_package_is_what_the_notebooks_export():
    assert stale_modules() == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_notebook_explains_itself(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    prose = sum(len(cell.source) for cell in cells if cell.cell_type == "markdown")
    written = sum(len(cell.source) for cell in cells if cell.cell_type == "code")
    assert prose >= 0.1 * written
    assert not [o for cell in cells for o in cell.get("outputs", []) if o.output_type == "error"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_exported_code_needs_neither_nbdev_nor_star_imports(notebook):
    source = exported(notebook)
    nodes = list(ast.walk(ast.parse(source)))
    stars = [n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.names[0].name == "*"]
    roots = {n.module.split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom) and n.module}
    assert stars == []
    assert not roots & {"nbdev", "fastcore", "IPython"}


@pytest.mark.parametrize(
    "statement",
    [
        "import smartgrid_ai",
        "from smartgrid_ai.cli import build_parser; build_parser().format_help()",
    ],
)
def test_start_is_quick_because_nothing_heavy_is_imported(statement):
    heavy = ("torch", "pytorch_lightning", "sklearn", "pandas", "litserve", "matplotlib", "numba")
    program = f"import sys; {statement}; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_whoever_forecasts_scores_or_serves_never_loads_what_trains():
    rooms = ("forecast.forecaster", "anomaly.detect", "serve.app", "evaluate.backtest", "workflow")
    names = ", ".join(f"smartgrid_ai.{room}" for room in rooms)
    program = f"import sys, {names}; sys.exit('pytorch_lightning' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_no_public_data_set_lies_in_the_project():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert [name for name in tracked if name.endswith((".parquet", ".csv", ".csv.gz"))] == []


def test_versions_are_pinned():
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and line[0] != "#"
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[^=\s]+", line) for line in lines)
    assert "torch==2.13.0" in lines
