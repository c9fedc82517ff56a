"""Packaging metadata lives in settings.ini, beside the notebooks it describes."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(HERE / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]
EXTRAS = ("serve", "report", "onnx", "lightgbm", "tune", "dev")
extras = {name: settings[f"{name}_requirements"].split() for name in EXTRAS}


class BuildWithReports(build_py):
    "The report notebooks live in nbs/reports; a wheel carries them as data of the package."

    def run(self):
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "smartgrid_ai" / "static" / "reports"
        target.mkdir(parents=True, exist_ok=True)
        for notebook in sorted((HERE / "nbs" / "reports").glob("*.ipynb")):
            self.copy_file(str(notebook), str(target / notebook.name))


setup(
    name=settings["name"],
    version=settings["version"],
    description=settings["description"],
    author=settings["author"],
    license=settings["license"],
    keywords=settings["keywords"].split(),
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["smartgrid_ai", "smartgrid_ai.*"]),
    package_data={"smartgrid_ai": ["py.typed", "static/**/*"]},
    python_requires=f">={settings['min_python']}",
    install_requires=settings["requirements"].split(),
    extras_require=extras,
    cmdclass={"build_py": BuildWithReports},
    entry_points={"console_scripts": [settings["console_script"]]},
)
