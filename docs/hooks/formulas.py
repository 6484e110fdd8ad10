"""LaTeX becomes MathML while the site is built: browsers show it by themselves, without a script or a network."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from xml.etree import ElementTree as ET

from latex2mathml.converter import convert

# What pymdownx.arithmatex (generic) makes of $$...$$, and of several of them below each other, and of $...$.
BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.S)
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.S)
NAMESPACE = "http://www.w3.org/1998/Math/MathML"
PRIMES = ("\N{PRIME}", "\N{DOUBLE PRIME}")
LONG = 40  # letters of LaTeX; a longer formula in a line of text may not fit a narrow screen


def on_page_content(html: str, **_: Any) -> str:
    return INLINE.sub(inline, BLOCK.sub(block, html))


def block(found: re.Match[str]) -> str:
    r"""Formulas with \qquad between them stand side by side where there is room; a number stays with its own."""
    lines = []
    for latex in re.split(r"\$\$\s*\$\$", found[1]):
        parts = (mathml(part, "block") for part in re.split(r"\\qquad(?!\s*\(\d)", latex) if part.strip())
        lines.append(f'<div class="formula">{"".join(parts)}</div>')
    return "".join(lines)


def inline(found: re.Match[str]) -> str:
    formula = mathml(found[1], "inline")
    return f'<span class="formula">{formula}</span>' if len(found[1]) > LONG else formula


def mathml(latex: str, display: str) -> str:
    ET.register_namespace("", NAMESPACE)
    root = ET.fromstring(convert(unescape(latex).strip(), display=display))
    for element in root.iter():
        lower_primes(element)
    return ET.tostring(root, encoding="unicode")


def lower_primes(element: ET.Element) -> None:
    """A prime after its letter, not above it as an exponent, which without a mathematical font is a speck."""
    name, parts = element.tag.removeprefix(f"{{{NAMESPACE}}}"), list(element)
    if name not in ("msup", "msubsup") or parts[-1].text not in PRIMES:
        return
    row = ET.Element(f"{{{NAMESPACE}}}mrow")
    prime = ET.SubElement(row, f"{{{NAMESPACE}}}mo", {"lspace": "0", "rspace": "0"})
    prime.text = parts[-1].text
    row.insert(0, parts[0])
    element.clear()
    element.tag = f"{{{NAMESPACE}}}{'mrow' if name == 'msup' else 'msub'}"
    element.extend([row, *parts[1:-1]])
