"""Imports run one way, in the order of the paper; `import cfii` stays light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import cfii

PACKAGE = Path(cfii.__file__).parent
# Each module may import only from those before it; `a b` on one line do not know each other.
ORDER = [
    "arguments tables",
    "pixels",
    "blockwise kernels",
    "eceg interaction updaters",
    "iterator",
    "neck",
    "features",
    "probe",
    "cost",
    "wrapper",
    "summary diagram inside colours",
    "visualize",
    "losses",
    "codecs",
    "training",
    "formats",
    "export",
    "__main__",
]


def imported(path):
    """The names below cfii that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "cfii":
            parts = node.module.split(".")[1:]
            yield from parts[:1] or [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("cfii."):
                    yield alias.name.split(".")[1]


def test_imports_run_downwards():
    rank = {name: i for i, names in enumerate(ORDER) for name in names.split()}
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        assert own in rank, f"{path}: add it to ORDER"
        for name in imported(path):
            inside = name == own and path.parent != PACKAGE
            assert inside or rank[name] < rank[own], f"{path} imports cfii.{name}"


def test_import_is_light():
    code = (
        "import sys, torch; before = set(sys.modules); import cfii; new = set(sys.modules) - before;"
        "heavy = {'timm', 'segmentation_models_pytorch', 'huggingface_hub', 'lightning', 'monai', 'scipy',"
        " 'matplotlib', 'PIL', 'torchvision'}; print(sorted(heavy & new))"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n" and result.stderr == ""


def test_nothing_is_unpickled():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "pickle" not in re.sub(r'""".*?"""|#[^\n]*', "", text, flags=re.S), path
        for call in re.findall(r"torch\.load\([^)]*\)|np\.load\([^)]*\)", text):
            assert "weights_only=True" in call or ("np.load" in call and "allow_pickle" not in call), path
