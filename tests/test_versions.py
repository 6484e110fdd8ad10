"""The lower bounds in pyproject.toml are the versions that `.ci/versions` tests."""

import re
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 and newer")
ROOT = Path(__file__).parents[1]


def test_lower_bounds_are_what_is_tested():
    lines = (ROOT / ".ci" / "oldest.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["train"], *extras["dev"]]:
        name, bound = re.fullmatch(r"([\w-]+)(?:\[\w+\])?(?:>=([\d.]+))", requirement).groups()
        if name not in ("ruff", "hatchling"):  # format and build, and test nothing
            assert tested[name] == bound, f"{name}: pyproject.toml says {bound}, .ci/oldest.txt {tested[name]}"
