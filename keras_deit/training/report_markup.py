"""HTML that cannot be broken by what it shows: text is escaped unless it is markup."""

import html
from collections.abc import Iterable, Sequence

# What a page may load: the pictures that lie in it, and nothing from anywhere else.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
GENERATOR = "keras_deit report"
VOID = {"img", "meta"}  # elements that have no end

# Colors: Okabe and Ito's, which color-blind people can tell apart, darker on white so
# that a thin line has a contrast of 3 to 1 at least. A line has its own dashes as well.
STYLE = """
:root {
  color-scheme: light dark;
  --page: #fff; --text: #1b1f24; --quiet: #59626d; --rule: #d5dae0; --panel: #f6f7f9;
  --mark: #fdf3d7; --c0: #0072b2; --c1: #c84e00; --c2: #00805e; --c3: #a83f7e;
  --c4: #8a6a00; --c5: #565d66;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --text: #e8eaed; --quiet: #a3abb5; --rule: #353b43;
    --panel: #1c2026; --mark: #3a3115; --c0: #56b4e9; --c1: #ff8f4a; --c2: #2fc795;
    --c3: #ea9ccb; --c4: #eac54f; --c5: #c3c9d1;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 2.5rem) 4rem; max-width: 72rem;
  background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0.5rem 0 0.25rem; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 0.75rem; }
h3 { font-size: 1rem; margin: 0 0 0.25rem; }
p { margin: 0.25rem 0 0.75rem; max-width: 46rem; }
.quiet { color: var(--quiet); }
.notice {
  background: var(--mark); border-radius: 0.4rem; padding: 0.75rem 1rem;
  margin: 1.25rem 0;
}
.notice p { margin: 0; }
.notice ul { margin: 0.25rem 0 0; padding-left: 1.25rem; }
.tiles { display: grid; gap: 0.75rem; margin: 1.25rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 11rem), 1fr)); }
.tile { background: var(--panel); border-radius: 0.4rem; padding: 0.75rem 1rem; }
.tile span { display: block; font-size: 0.85rem; color: var(--quiet); }
.tile strong { display: block; font-size: 1.6rem; line-height: 1.3; font-weight: 600; }
.panels { display: grid; gap: 0 2.5rem; }
@media (min-width: 44rem) {
  .panels { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .panels.three { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0 2rem; }
  .three svg.chart { font-size: 14px; }
}
figure { margin: 0 0 1.75rem; break-inside: avoid; }
figure.half { max-width: 34rem; }
.panels figure { display: grid; grid-row: span 4; grid-template-rows: subgrid;
  grid-template-columns: minmax(0, 1fr); }
figcaption { font-size: 0.85rem; color: var(--quiet); margin-top: 0.25rem; }
svg.chart { display: block; width: 100%; height: auto; font-size: 12px; }
svg text { fill: var(--quiet); }
.grid { stroke: var(--rule); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.s0 { --c: var(--c0); } .s1 { --c: var(--c1); } .s2 { --c: var(--c2); }
.s3 { --c: var(--c3); } .s4 { --c: var(--c4); } .s5 { --c: var(--c5); }
.line { stroke: var(--c); } .dot, .column { fill: var(--c); }
.d1 { stroke-dasharray: 7 3; } .d2 { stroke-dasharray: 2 3; }
.d3 { stroke-dasharray: 9 3 2 3; } .d4 { stroke-dasharray: 14 4; }
.legend { list-style: none; margin: 0 0 0.35rem; padding: 0; font-size: 0.85rem;
  display: flex; flex-wrap: wrap; gap: 0 1rem; align-content: flex-start; }
.legend li { display: flex; align-items: center; gap: 0.4rem; }
.legend svg { flex: none; width: 28px; height: 8px; }
.legend b { font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; max-width: 100%; margin: 0.5rem 0 0.75rem; }
table { border-collapse: collapse; font-size: 0.9rem; overflow-wrap: break-word;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 0.5rem 0 0.25rem; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 1.25rem 0.3rem 0;
  border-bottom: 1px solid var(--rule); }
thead th { font-weight: 600; color: var(--quiet); white-space: nowrap; }
tbody th { font-weight: 500; position: sticky; left: 0; background: var(--page);
  min-width: 8rem; max-width: 24rem; }
td { min-width: 4rem; max-width: 28rem; }
.number { text-align: right; white-space: nowrap; }
tr.marked th, tr.marked td { background: var(--mark); }
tr.marked th { font-weight: 700; }
td.best { font-weight: 700; }
td.bar { min-width: 12rem; vertical-align: middle; padding-right: 1.5rem; }
.bar div { background: var(--panel); border-radius: 2px; }
.bar i { display: block; height: 0.7rem; background: var(--c0); border-radius: 2px; }
.views { display: block; max-width: max(100%, 50rem); }
@media (prefers-color-scheme: dark) { .views { background: #fff; padding: 0.75rem; } }
@media (max-width: 44rem) { td.bar { min-width: 5rem; padding-right: 1rem; } }
@media print {
  :root { --page: #fff; --text: #000; --quiet: #444; --rule: #bbb; --panel: #eee;
    --mark: #f6ecd0; --c0: #0072b2; --c1: #c84e00; --c2: #00805e; --c3: #a83f7e;
    --c4: #8a6a00; --c5: #565d66; print-color-adjust: exact; }
  body { padding: 0; max-width: none; font-size: 0.8rem; }
  .scroll { overflow: visible; }
  .views { max-width: 100%; }
  h2, h3, caption { break-after: avoid; }
  tr, .tile { break-inside: avoid; }
}
"""


class Markup(str):
    """Text that is HTML already; only `tag` and `joined` make it of other text."""

    __slots__ = ()


def tag(name: str, *content: object, **attributes: object) -> Markup:
    """Writes an element of HTML or SVG.

    Args:
        name: Of the element.
        *content: What is in it. `Markup` goes in as it is; everything else is text.
        **attributes: Its attributes; `class_` is "class", an underscore a hyphen, and
            an attribute that is None is left out.

    Returns:
        The element, or the bare start of one that has no end.

    Example:
    >>> tag("p", "1 < 2 ", tag("b", "yes"), class_="note")
    '<p class="note">1 &lt; 2 <b>yes</b></p>'
    """
    inside = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{inside}>")
    return Markup(f"<{name}{inside}>{joined(content)}</{name}>")


def joined(content: Iterable[object]) -> Markup:
    """Writes pieces one after the other; those that are no `Markup` are text."""
    return Markup(
        "".join(c if isinstance(c, Markup) else html.escape(str(c)) for c in content)
    )


def table(
    columns: Sequence[object],
    rows: Iterable[Sequence[object]],
    numbers: Sequence[int] = (),
    caption: str | None = None,
    marked: Sequence[int] = (),
) -> Markup:
    """Writes a table in a box of its own, which scrolls where the page is narrow.

    Args:
        columns: What stands above the columns.
        rows: The cells; the first of a row names it. What is a `td` already stays so.
        numbers: Which columns hold numbers, from 0; they are aligned to the right.
        caption: What stands above the table.
        marked: Which rows stand out, from 0.
    """
    kinds = ["number" if i in numbers else None for i in range(len(columns))]
    head = [
        tag("th", c, scope="col", class_=k) for c, k in zip(columns, kinds, strict=True)
    ]
    body = [
        tag("tr", *_cells(row, kinds), class_="marked" if i in marked else None)
        for i, row in enumerate(rows)
    ]
    title = [] if caption is None else [tag("caption", caption)]
    whole = tag("table", *title, tag("thead", tag("tr", *head)), tag("tbody", *body))
    return tag("div", whole, class_="scroll", tabindex="0")


def _cells(row: Sequence[object], kinds: Sequence[str | None]) -> list[Markup]:
    name, *rest = row
    return [tag("th", name, scope="row", class_=kinds[0])] + [
        c if isinstance(c, Markup) and c.startswith("<td") else tag("td", c, class_=k)
        for c, k in zip(rest, kinds[1:], strict=True)
    ]


def page(title: str, *content: object) -> str:
    """Writes a whole page, which loads nothing from anywhere."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name_="generator", content=GENERATOR),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    body = tag("body", tag("main", *content))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"
