import csv
import json

import numpy as np
import pytest

from cfii.training.results import Results

CLASSES = ("background", "liver", "spleen")


def square(size=10, liver=(0, 4), spleen=(6, 9)):
    label = np.zeros((size, size), np.uint8)
    label[slice(*liver), :5], label[slice(*spleen), 5:] = 1, 2
    return label


@pytest.fixture
def results():
    results = Results(CLASSES)
    results.add("a", square(), square())
    results.add("b", square(liver=(0, 2)), square())
    results.add("c", square(), square(spleen=(0, 0)))
    return results


def test_summary(results):
    table = results.summary()
    liver = table["liver"]["dice"]
    values = [1, 2 / 3, 1]
    assert liver["mean"] == pytest.approx(np.mean(values)) and liver["std"] == pytest.approx(
        np.std(values, ddof=1)
    )
    assert liver["low"] <= liver["mean"] <= liver["high"] <= 1 and liver["cases"] == 3
    assert table["spleen"]["dice"]["mean"] == pytest.approx(2 / 3)  # 1, 1 and 0: found where there is none
    assert table["mean"]["dice"]["mean"] == pytest.approx((np.mean(values) + 2 / 3) / 2)
    assert table["spleen"]["hd95"]["mean"] == pytest.approx(np.sqrt(200) / 3)
    assert results.case_means()["c"] == pytest.approx(0.5)


def test_the_bootstrap_covers_the_mean():
    """Of 200 sets of cases, about 95 % of the intervals hold the true mean (a little less with 30 cases)."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(200):
        results = Results(("background", "organ"))
        results.scores = {str(i): [(x, x, x)] for i, x in enumerate(rng.normal(0.8, 0.1, 30))}
        cell = results.summary()["organ"]["dice"]
        inside += cell["low"] <= 0.8 <= cell["high"]
    assert 0.88 <= inside / 200 <= 0.99


def test_what_is_absent_everywhere_is_left_out():
    results = Results(CLASSES)
    results.add("a", square(spleen=(0, 0)), square(spleen=(0, 0)))
    table = results.summary()
    assert np.isnan(table["spleen"]["dice"]["mean"]) and table["spleen"]["dice"]["cases"] == 0
    assert table["mean"]["dice"]["mean"] == 1
    assert "| spleen | – | – | – | 0 |" in results.markdown()


def test_the_papers_protocol_rewards_what_it_rewards():
    results = Results(CLASSES, "paper")
    results.add("a", square(), square(spleen=(0, 0)))
    assert results.summary()["spleen"]["dice"]["mean"] == 1


def test_files(results, tmp_path):
    results.save(tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "scores.csv").read_text().splitlines()))
    assert len(rows) == 6 and rows[2]["case"] == "b" and float(rows[2]["dice"]) == results.scores["b"][0][0]
    lines = list(csv.DictReader((tmp_path / "out" / "summary.csv").read_text().splitlines()))
    assert len(lines) == 9 and lines[6]["class"] == "mean" and lines[0]["cases"] == "3"
    assert float(lines[0]["high"]) == results.summary()["liver"]["dice"]["high"]
    content = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert content["protocol"] == "strict" and content["hd95_unit"] == "voxels"
    assert content["cases"]["b"]["liver"]["dice"] == pytest.approx(2 / 3)
    text = (tmp_path / "out" / "scores.md").read_text()
    assert "Protocol `strict`, 3 cases" in text and "| liver | 88.89 ± 19.25 [" in text and "| mean |" in text
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_nan_becomes_null(tmp_path):
    results = Results(CLASSES)
    results.add("a", square(spleen=(0, 0)), square(spleen=(0, 0)))
    results.save(tmp_path)
    content = json.loads((tmp_path / "scores.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert content["cases"]["a"]["spleen"]["dice"] is None


def test_multilabel_and_units():
    masks = np.stack([square() == 1, square() > 0])
    results = Results(("liver", "any"), multilabel=True)
    results.add("a", masks, masks, spacing=(2, 2))
    assert results.summary()["any"]["iou"]["mean"] == 1 and results.unit == "mm"
    results.add("b", masks, masks)
    assert results.unit == "mm and voxels"


def test_wrong_calls_are_named(results):
    with pytest.raises(ValueError, match="expected every case once, got 'a' again"):
        results.add("a", square(), square())
    with pytest.raises(ValueError, match="expected one shape"):
        results.add("d", square(), square(12))
    with pytest.raises(ValueError, match="expected at least one case"):
        Results(CLASSES).summary()
