"""The soak of benchmarks/soak.py, short: memory stays flat, threads agree."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_memory_is_flat_and_threads_agree(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "soak.py"), "--steps=300", "--calls=300"]
    subprocess.run(
        [*command, "--device=cpu", f"--json={tmp_path / 'soak.json'}"], check=True, capture_output=True
    )
    results = json.loads((tmp_path / "soak.json").read_text())["results"]
    for name in ("steps", "calls"):
        points = [point["resident"] for point in results[name]["memory_MiB"]]
        assert max(points[1:]) - points[1] < 8, points  # a step's own tensors are 20 MiB
    assert results["threads"]["largest_difference"] == 0
