"""`cfii.diagram`: a network's parts as a drawing, from the modules themselves."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from torch import nn

from cfii.wrapper import require_codec

# Pixels. Narrow, so that a telephone shows it without shrinking the text below what can be read.
MARGIN, GAP = 18, 18
COLUMNS = {"encoder": 74, "ECEG": 66, "update": 84, "interaction": 66, "decoder": 74}
WIDTH = 2 * MARGIN + sum(COLUMNS.values()) + (len(COLUMNS) - 1) * GAP
TOP, BOX, STEP = 98, 48, 100  # the first row of boxes, their height, from one row to the next

STYLE = """
.card { fill: #ffffff; stroke: #c9ced6; }
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: #1b1f24; }
.title { font-size: 16px; font-weight: 600; }
.head { font-weight: 600; }
.note { fill: #59636e; }
.small { font-size: 11px; }
.middle { text-anchor: middle; }
.box { stroke-width: 1.4; }
.encoder, .decoder { fill: #e9ecf1; stroke: #8a94a3; }
.ECEG { fill: #fde9c8; stroke: #b77400; }
.update { fill: #dcefe6; stroke: #1f7a55; }
.SIT { fill: #d9e9fb; stroke: #1f6cb5; }
.CIT { fill: #eadff7; stroke: #7038a8; }
.line { fill: none; stroke: #59636e; stroke-width: 1.4; }
.tip { fill: #59636e; }
@media (prefers-color-scheme: dark) {
  .card { fill: #161b22; stroke: #3d444d; }
  text { fill: #e6edf3; }
  .note { fill: #a5b0bc; }
  .encoder, .decoder { fill: #2a313b; stroke: #7d8896; }
  .ECEG { fill: #4a3410; stroke: #e0a13a; }
  .update { fill: #153a2b; stroke: #4fb98a; }
  .SIT { fill: #13304f; stroke: #5ea4e8; }
  .CIT { fill: #35214d; stroke: #b287e0; }
  .line { stroke: #a5b0bc; }
  .tip { fill: #a5b0bc; }
}
"""


def diagram(model: nn.Module, title: str = "") -> str:
    """Draw encoder, neck and decoder, with every stage's stride, widths and parameters, as SVG.

    It needs nothing but the modules: widths, strides and parameters are read off them, and no image passes.
    Colours follow the reader's preference for light or dark; either brings its own background. Text stays text.

    Args:
        model: a `CFIIWrapper` or a network of `create_model`, with the neck; also compiled or in DDP.
        title: by default the name of the network's class.

    Returns:
        An SVG document.

    Raises:
        TypeError, ValueError: not such a network.

    Examples:
        >>> Path("network.svg").write_text(cfii.diagram(model), encoding="utf-8")
    """
    model = require_codec(model)
    if model.neck is None:
        raise ValueError("model: expected a network with CFII, got a plain one (cfii=False)")
    return Drawing(model, title or type(model).__name__).svg()


class Drawing:
    """The stages from the top, the shallowest first; encoder on the left, decoder on the right."""

    def __init__(self, model: nn.Module, title: str) -> None:
        self.model, self.neck, self.title = model, model.neck, title
        self.parts: list[str] = []
        x = MARGIN
        self.x: dict[str, float] = {}
        for name, width in COLUMNS.items():
            self.x[name] = x
            x += width + GAP

    def svg(self) -> str:
        rows = self.neck.overview()
        halves = "F1, F2: halves of a stage" if self.neck.eceg is not None else "F2: half of a stage"
        notes = [
            ", ".join(f"{name} {short(count(module))}" for name, module in self.modules()),
            "1/s: resolution; ch: channels; with a module: its parameters",
            f"{halves}; E′, F′: embeddings and features that",
            "have interacted, on their way to the next shallower stage",
        ]
        if self.neck.rejoin:
            notes.append("The decoder is given [F1; F′], at the encoder's own widths")
        height = TOP + len(rows) * STEP + 18 * len(notes)
        self.add("rect", cls="card", x=0.5, y=0.5, width=WIDTH - 1, height=height - 1, rx=10)
        self.text(MARGIN, 30, shorten(self.title, 44), "title")
        classes = "1 class" if self.model.num_classes == 1 else f"{self.model.num_classes} classes"
        kind = "explicit" if self.neck.learned is None else "learned"
        about = f"{short(count(self.model))} parameters, {classes}, {kind} class embeddings"
        self.text(MARGIN, 50, about, "note")
        heads = {
            "encoder": "encoder",
            "ECEG": "ECEG" if self.neck.eceg is not None else "learned",
            "update": " + ".join(self.updaters()) or "",
            "interaction": " / ".join(sorted({type(m).__name__ for m in self.neck.iterator.interaction})),
            "decoder": "decoder",
        }
        for name, head in heads.items():
            self.text(self.middle(name), TOP - 14, head, "head middle")
        for r, row in enumerate(rows):
            self.row(r, row)
        for i, note in enumerate(notes):
            self.text(MARGIN, TOP + len(rows) * STEP + 18 * i, note, "note")
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" role="img" aria-label="{escape(self.title)}: {escape(notes[0])}">\n'
            f"<style>{STYLE}</style>\n{body}\n</svg>\n"
        )

    def modules(self) -> list[tuple[str, nn.Module]]:
        names = ("encoder", "neck", "decoder", "head")
        return [(name, getattr(self.model, name)) for name in names if getattr(self.model, name) is not None]

    def updaters(self) -> list[str]:
        iterator = self.neck.iterator
        return [name for name, part in (("CEU", iterator.ceu), ("FEU", iterator.feu)) if part is not None]

    def row(self, r: int, row: object) -> None:
        """A stage: what it brings, what the neck does with it, what the decoder is given."""
        y = TOP + r * STEP
        centre, takes_part = y + BOX / 2, row.stage in self.neck.stages
        is_last = r == len(self.neck.in_channels) - 1
        self.box("encoder", y, "encoder", [f"1/{row.stride}", f"{row.in_channels} ch"])
        self.box("decoder", y, "decoder", [f"1/{row.stride}", f"{row.out_channels} ch"])
        if not is_last:
            self.arrow([(self.middle("encoder"), y + BOX), (self.middle("encoder"), y + STEP)])
            self.arrow([(self.middle("decoder"), y + STEP), (self.middle("decoder"), y + BOX)])
        if not takes_part:
            self.arrow([(self.right("encoder"), centre), (self.x["decoder"], centre)])
            self.text((self.right("encoder") + self.x["decoder"]) / 2, centre - 6, row.interaction, "note middle")
            return
        k = self.neck.stages.index(row.stage)
        parts = self.neck.parts(k)
        kind = list(parts)[-1]
        updates = [name for name in ("CEU", "FEU") if name in parts]
        next_box = "update" if updates else "interaction"
        upper, lower = y + 14, y + BOX + 16
        # F1 to ECEG, F2 below it.
        if "ECEG" in parts:
            self.box("ECEG", y, "ECEG", ["ECEG", short(count(parts["ECEG"]))])
            self.arrow([(self.right("encoder"), upper), (self.x["ECEG"], upper)])
            self.text(self.right("encoder") + 2, upper - 4, "F1", "small note")
        else:
            self.box("ECEG", y, "ECEG", ["learned", short(self.neck.learned[k].numel())])
        self.arrow([(self.right("ECEG"), upper), (self.x[next_box], upper)])
        self.arrow(
            [
                (self.middle("encoder") + 22, y + BOX),
                (self.middle("encoder") + 22, lower),
                (self.right("ECEG") + GAP / 2 - 4, lower),
                (self.right("ECEG") + GAP / 2 - 4, y + BOX - 12),
                (self.x[next_box], y + BOX - 12),
            ]
        )
        self.text(self.x["ECEG"] + 2, lower - 4, "F2", "note")
        if updates:
            self.box("update", y, "update", [f"{name} {short(count(parts[name]))}" for name in updates])
            self.arrow([(self.right("update"), centre), (self.x["interaction"], centre)])
        self.box("interaction", y, kind, [kind, short(count(parts[kind]))])
        self.arrow([(self.right("interaction"), centre), (self.x["decoder"], centre)])
        if updates and k + 1 < len(self.neck.stages):
            deeper = self.neck.stages[k + 1]
            below, turn = TOP + deeper * STEP, y + STEP - 25
            passed = [name for name, part in (("E′", "CEU"), ("F′", "FEU")) if part in updates]
            x = self.middle("interaction")
            self.arrow([(x, below), (x, turn), (self.middle("update"), turn), (self.middle("update"), y + BOX)])
            self.text(self.middle("update") + 6, turn - 5, ", ".join(passed), "note")

    # --- marks -------------------------------------------------------------------------------------------------

    def middle(self, column: str) -> float:
        return self.x[column] + COLUMNS[column] / 2

    def right(self, column: str) -> float:
        return self.x[column] + COLUMNS[column]

    def add(self, tag: str, content: str | None = None, cls: str = "", **attributes: str | float) -> None:
        written = "".join(
            f' {name}="{value if isinstance(value, str) else format(value, "g")}"'
            for name, value in attributes.items()
        )
        end = "/>" if content is None else f">{escape(content)}</{tag}>"
        self.parts.append(f'<{tag} class="{cls}"{written}{end}')

    def text(self, x: float, y: float, content: str, cls: str = "") -> None:
        self.add("text", content, cls, x=x, y=y)

    def box(self, column: str, y: float, cls: str, lines: Sequence[str]) -> None:
        self.add("rect", cls=f"box {cls}", x=self.x[column], y=y, width=COLUMNS[column], height=BOX, rx=5)
        first = y + BOX / 2 + 4 - 8 * (len(lines) - 1)
        for i, line in enumerate(lines):
            self.text(self.middle(column), first + 16 * i, line, "middle")

    def arrow(self, points: Sequence[tuple[float, float]]) -> None:
        """Along straight lines, with a tip at the end (drawn as a shape: markers are not shown everywhere)."""
        self.add("polyline", cls="line", points=" ".join(f"{x:g},{y:g}" for x, y in points))
        (x0, y0), (x, y) = points[-2:]
        dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
        base = [(x - 7 * dx + side * dy, y - 7 * dy + side * dx) for side in (-3.5, 3.5)]
        self.add("polygon", cls="tip", points=" ".join(f"{a:g},{b:g}" for a, b in [(x, y), *base]))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def short(number: int) -> str:
    """Three digits at least: 523, 27.7 K, 1.49 M."""
    if number < 1000:
        return str(number)
    value, unit = (number / 1e6, "M") if number >= 999_950 else (number / 1e3, "K")
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
