"""The lower bounds in pyproject.toml are the versions that `.ci/versions` tests."""

import re
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 and newer")
ROOT = Path(__file__).parents[1]


def pinned(name):
    lines = (ROOT / ".ci" / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"core": project["dependencies"], **project["optional-dependencies"]}


@pytest.mark.parametrize(
    ("file", "extras"), [("oldest.txt", ["core", "train", "dev"]), ("oldest-export.txt", ["export"])]
)
def test_lower_bounds_are_what_is_tested(file, extras):
    tested, required = pinned(file), requirements()
    for requirement in [r for extra in extras for r in required[extra]]:
        name, bound = re.fullmatch(r"([\w-]+)(?:\[\w+\])?(?:>=([\d.]+))", requirement).groups()
        if name not in ("ruff", "hatchling"):  # format and build, and test nothing
            assert tested[name] == bound, f"{name}: pyproject.toml says {bound}, .ci/{file} {tested[name]}"
