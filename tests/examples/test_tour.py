"""The notebook's cells run in order, in a few lines of Python instead of a Jupyter kernel."""

import json
import warnings

import matplotlib
import pytest
import torch
from contract import FINDS_SIZES
from scripts import FOLDER

NOTEBOOK = json.loads((FOLDER / "tour.ipynb").read_text(encoding="utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_outputs_are_stripped():
    assert CODE
    for cell in CODE:
        assert cell["outputs"] == [] and cell["execution_count"] is None and cell["metadata"] == {}


def test_is_a_notebook_of_format_4():
    assert NOTEBOOK["nbformat"] == 4
    assert set(NOTEBOOK["metadata"]) == {"kernelspec", "language_info"}  # nobody's own settings
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])


def test_links_exist():
    import re

    for cell in NOTEBOOK["cells"]:
        for link in re.findall(r"\]\(([^)#:]+)\)", "".join(cell["source"])):
            assert (FOLDER / link).exists(), link


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What is there after the last cell."""
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    if not FINDS_SIZES:
        warnings.filterwarnings("ignore", "export: .* takes images of", UserWarning)
    names: dict = {}
    for i, cell in enumerate(CODE):
        exec(compile("".join(cell["source"]), f"tour.ipynb, code {i}", "exec"), names)
    yield names
    names["plt"].close("all")


def test_runs_from_top_to_bottom(names, tmp_path):
    steps = len(names["train"])
    assert sum(names["losses"][-10:]) < 0.7 * sum(names["losses"][:10])
    assert len(names["losses"]) == 2 * steps
    assert names["dice"][names["classes"].index("liver")] > 0.6  # as the text says, the large organs are there
    assert (tmp_path / "tour.pt2").exists()
    assert names["exported"].dynamic_axes == (("batch", "height", "width") if FINDS_SIZES else ("batch",))
    assert names["difference"] < 1e-3
    figures = [names["plt"].figure(n) for n in names["plt"].get_fignums()]
    assert len(figures) == 2
    assert all(axis.has_data() for figure in figures for axis in figure.axes)
    inside = names["figure"]  # of visualize.explain, the last
    written = {text.get_text() for text in inside.texts}
    assert {f"{n} {name}" for n, name in enumerate(names["classes"])} | {"truth"} <= written
    assert torch.isfinite(names["output"].logits).all()
