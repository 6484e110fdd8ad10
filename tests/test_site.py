"""The documentation as a site: it builds without a warning, and every page stands by itself."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import cfii

ROOT = Path(__file__).parents[1]
for package in ("mkdocs", "mkdocstrings", "latex2mathml", "matplotlib", "scipy"):
    pytest.importorskip(package, reason='pip install "cfii[train,docs]"')


class Reader(HTMLParser):
    """The links, the anchors and what a page loads."""

    def __init__(self, page):
        super().__init__()
        self.links, self.anchors, self.loaded = [], set(), []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "link" or found.get("src"):
            self.loaded.append(found.get("src") or found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages by name; warnings end the build (mkdocs.yml: strict), griffe's about docstrings among them."""
    if not (ROOT / "cfii").is_dir():
        pytest.skip("the installed package is tested, without its sources")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return {page.relative_to(folder).as_posix(): page for page in folder.rglob("*.html")}


def test_links_lead_somewhere(site):
    readers = {page: Reader(page) for page in site.values()}
    for page, reader in readers.items():
        if page.name == "404.html":  # its links are those of the server
            continue
        for link in reader.links + reader.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{page.name}: {link}"
            if parts.fragment and target in readers and not parts.fragment.startswith("__"):
                assert unquote(parts.fragment) in readers[target].anchors, f"{page.name}: {link}"


def test_nothing_comes_from_elsewhere(site):
    for page in site.values():
        for source in Reader(page).loaded:
            assert not urlsplit(source).netloc, f"{page.name} loads {source}"


def test_lists_and_tables_are_what_they_should_be(site):
    for name, page in site.items():
        text = page.read_text(encoding="utf-8")
        for paragraph in re.findall(r"<p>(.*?)</p>", text, re.S):
            # Left over where Markdown on GitHub sees a list or a table, and Python's does not.
            assert not re.search(r"^\s*(- |\|)", paragraph, re.M), f"{name}: {paragraph}"


def test_formulas_are_mathml(site):
    for name, page in site.items():
        text = page.read_text(encoding="utf-8")
        assert "arithmatex" not in text, name
        for formula in re.findall(r"<math.*?</math>", text, re.S):
            assert "$" not in formula and "\\" not in formula, f"{name}: {formula}"
        shown = re.sub(r"<(script|pre|code)\b.*?</\1>|<math.*?</math>", "", text, flags=re.S)
        assert not re.search(r"\$[^$]*[\\_^]|\\(?:mathrm|frac|phi)\b", shown), f"{name}: LaTeX is left over"
    assert site["paper.html"].read_text(encoding="utf-8").count("<math") > 100
    assert "<math" in site["api/modules.html"].read_text(encoding="utf-8")


def test_every_public_name_is_documented(site):
    anchors = set.union(*(Reader(page).anchors for name, page in site.items() if name.startswith("api/")))
    for name in cfii.__all__:  # some are a function and the module that it is from
        assert anchors & {f"cfii.{name}", f"cfii.{name}.{name}", f"cfii.{name.lower()}.{name}"}, name


def test_tables_hold_what_was_measured(site):
    for name, page in site.items():
        assert "<!-- results" not in page.read_text(encoding="utf-8"), name
    measured = json.loads((ROOT / "benchmarks" / "results" / "backbones.json").read_text())["results"]
    ratio = next(
        r["images_per_s"]
        for r in measured["ratios"]
        if r["network"] == "resunet + CFII" and r["task"] == "training"
    )
    for name in ("index.html", "benchmarks.html"):
        assert f">{ratio:.2f} ×</td>" in site[name].read_text(encoding="utf-8"), name
