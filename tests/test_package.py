"""What is released: one version, and archives that hold what they should and nothing else."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import cfii

ROOT = Path(__file__).parents[1]
FOLDERS = ("tests", "docs", "benchmarks", "examples", ".ci", ".github")
FILES = {
    *("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "mkdocs.yml"),
    *(".pre-commit-config.yaml", ".gitignore", "PKG-INFO"),
}


def sources(folder):
    """The files of a folder of this checkout, without what programs leave."""
    files = (file for file in (ROOT / folder).rglob("*") if file.is_file())
    return {f.relative_to(ROOT).as_posix() for f in files if not {"__pycache__", ".hypothesis"} & set(f.parts)}


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The wheel and the sdist."""
    pytest.importorskip("hatchling", reason='pip install "cfii[dev]"')
    if not (ROOT / "cfii").is_dir():
        pytest.skip("the installed package is tested, without its sources")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_wheel(archives):
    with zipfile.ZipFile(archives[0]) as wheel:
        names = set(wheel.namelist())
        about = f"cfii-{cfii.__version__}.dist-info/"
        assert {name for name in names if not name.startswith(about)} == sources("cfii")
        assert f"{about}licenses/LICENSE" in names
        metadata = wheel.read(f"{about}METADATA").decode()
        assert f"\nVersion: {cfii.__version__}\n" in metadata
        assert wheel.read(f"{about}entry_points.txt").decode().split() == [
            *("[console_scripts]", "cfii", "=", "cfii.__main__:main")
        ]


def test_sdist(archives):
    with tarfile.open(archives[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    expected = set.union(sources("cfii"), *map(sources, FOLDERS), FILES)
    assert names == expected, names ^ expected


def test_command_says_its_version():
    result = subprocess.run(
        [sys.executable, "-m", "cfii", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith(f"cfii {cfii.__version__} (Python 3.")
    assert re.search(r"torch \d", result.stdout) and result.stdout.count("\n") == 1


def test_changelog_has_keep_a_changelogs_form():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (.*)$", text, re.M)
    assert heads[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", head) for head in heads[1:]), heads
    kinds = set(re.findall(r"^### (.*)$", text, re.M))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
