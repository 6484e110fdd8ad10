"""Every benchmark still fits the package: its modules load, its options parse."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"
LOAD_ALL = """
import importlib, sys
from pathlib import Path
folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))
for file in sorted(folder.glob("*.py")):
    importlib.import_module(file.stem)
    print(file.stem)
"""


def test_benchmarks_load():
    result = subprocess.run([sys.executable, "-c", LOAD_ALL, str(FOLDER)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) == len(list(FOLDER.glob("*.py"))) > 5
