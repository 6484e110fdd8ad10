"""The `cfii` command, in this process or in one of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cfii.training import cli

HERE = Path(__file__).parent
SMALL = ["--data.num_workers=0", "--model.options={widths: [8, 16, 16]}"]
TINY = ["--config=demo", "--data.options={size: 32}", "--data.size=32", "--model.options={widths: [8, 16]}"]
OWN = ["--model.network=own_network.Own", "--model.in_channels=1"]


def call(monkeypatch, capsys, *arguments):
    """(exit code, standard output, standard error)"""
    monkeypatch.setattr(sys, "argv", ["cfii", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
        raise SystemExit(0)
    return caught.value.code, *capsys.readouterr()


def start(*arguments, **options):
    """The command as a process of its own; networks of these tests can be named."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "cfii", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)


def run(*arguments, **options):
    process = start(*arguments, **options)
    output = process.communicate()[0].decode()
    assert process.returncode == 0, output
    return output
