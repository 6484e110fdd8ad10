"""Pages that live outside docs/, and links from the pages to files outside docs/."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# In the repository, and in the site.
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "measuring.md",
}
# Shown by the front page.
PLACES = {**PAGES, "README.md": "index.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, name in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Lead links to where the site has the page, or to the repository; without one only their text is left."""
    here = Path(page.file.abs_src_path).parent

    def replace(found: re.Match[str]) -> str:
        text, target, anchor = found.groups()
        path = Path(os.path.normpath(here / target))
        if not path.exists():
            return found[0]  # for mkdocs to complain of
        source = path.relative_to(ROOT).as_posix()
        inside = source.removeprefix("docs/") if source.startswith("docs/") else PLACES.get(source)
        if inside is not None:
            up = os.path.relpath(inside, Path(page.file.src_uri).parent)
            return f"[{text}]({up}{anchor or ''})"
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{source})" if config.repo_url else text

    parts = re.split(r"(^ *```.*?^ *```)", markdown, flags=re.S | re.M)  # code is left alone
    link = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)#\s]+)(#[^)]*)?\)")
    return "".join(part if i % 2 else link.sub(replace, part) for i, part in enumerate(parts))
