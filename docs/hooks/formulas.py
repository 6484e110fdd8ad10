"""LaTeX becomes MathML while the site is built: browsers show it by themselves, without a script or a network."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

# What pymdownx.arithmatex (generic) makes of $$...$$ and of $...$.
BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.S)
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.S)


def on_page_content(html: str, **_: Any) -> str:
    page = BLOCK.sub(lambda m: f'<div class="formula">{mathml(m[1], "block")}</div>', html)
    return INLINE.sub(lambda m: mathml(m[1], "inline"), page)


def mathml(latex: str, display: str) -> str:
    return convert(html.unescape(latex).strip(), display=display)
