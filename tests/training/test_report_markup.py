import re

import pytest

from keras_deit.training.report_markup import STYLE, Markup, joined, page, table, tag
from tests.training.report_runs import Page


def test_text_is_escaped_and_markup_is_not():
    assert tag("p", "<script>") == "<p>&lt;script&gt;</p>"
    assert tag("p", tag("b", "a & b"), 1) == "<p><b>a &amp; b</b>1</p>"
    assert joined(["<", Markup("<br>")]) == "&lt;<br>"


@pytest.mark.parametrize("text", ['"', "'", "<", ">", "&"])
def test_no_text_leaves_its_attribute_or_element(text):
    (element,) = Page(tag("a", text, title=text)).elements
    assert element == ("a", {"title": text})


def test_text_made_of_markup_is_text_again():
    assert tag("p", tag("b", "x") + "<i>") == "<p>&lt;b&gt;x&lt;/b&gt;&lt;i&gt;</p>"


def test_names_of_attributes_that_python_keeps_for_itself():
    made = tag("meta", class_="a", http_equiv="b", name_="c", viewBox="d", id=None)
    assert made == '<meta class="a" http-equiv="b" name="c" viewBox="d">'


def test_a_table_names_its_rows_and_columns_and_aligns_numbers():
    cell = tag("td", "x", class_="best")
    made = table(
        ("", "n"), [("a", 1), ("b", cell)], numbers=[1], caption="T", marked=[0]
    )
    parsed = Page(made)
    assert parsed.tables == [[["", "n"], ["a", "1"], ["b", "x"]]]
    assert parsed.attributes("scope") == ["col", "col", "row", "row"]
    assert parsed.attributes("class") == [
        "scroll",
        "number",
        "marked",
        "number",
        "best",
    ]
    assert "<caption>T</caption>" in made
    assert "<caption>" not in table(("a",), [])


def test_a_row_that_does_not_fit_its_columns_is_refused():
    with pytest.raises(ValueError, match="zip"):
        table(("a", "b"), [("x",)])


def test_a_page_is_whole_and_loads_nothing():
    text = page("a < b", tag("h1", "Hello"))
    parsed = Page(text)
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    assert parsed.headings == [(1, "Hello")]
    assert "<title>a &lt; b</title>" in text
    assert (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        in parsed.attributes("content")
    )
    assert "Content-Security-Policy" in parsed.attributes("http-equiv")
    assert "://" not in text
    assert not re.search(r"url\(|@import|@font-face|expression|<", STYLE)


def test_the_style_knows_dark_screens_narrow_ones_and_paper():
    for condition in ("prefers-color-scheme: dark", "min-width", "print"):
        assert condition in STYLE
    assert STYLE.count("{") == STYLE.count("}")


def luminance(color):
    """Relative luminance of "#rgb" or "#rrggbb", as the WCAG defines it."""
    digits = color[1:] if len(color) == 7 else "".join(2 * c for c in color[1:])
    shares = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [
        s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares
    ]
    return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_of_black_on_white_is_21():
    assert contrast("#000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_and_lines_stand_out_from_the_page(scheme):
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    colors = dict(re.findall(r"--([\w-]+): (#\w+)", blocks[scheme]))
    lines = [colors[f"c{i}"] for i in range(6)]
    assert len(set(lines)) == 6
    for color in lines:
        assert contrast(color, colors["page"]) >= 3
    for name in ("text", "quiet"):
        for ground in ("page", "panel", "mark"):
            assert contrast(colors[name], colors[ground]) >= 4.5
