"""The page of a text: what it tells is what the model says, and what it shows can do nothing."""

import base64
import hashlib
import html
import itertools
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
import torch
import zoo
from matplotlib.figure import Figure
from torch.nn import functional as F

import wavecomp as wc
from wavecomp.files.output import write_whole
from wavecomp.report import figure_page, read, report_page
from wavecomp.report.figure import write_figure
from wavecomp.report.page import DARK, LIGHT, classes, whole_classes
from wavecomp.report.shown import shown

TEXT = b"So it was written, and so it was read again, chunk by chunk, to the end."
HARM = b"<script>alert(1)</script><img src=x onerror=alert(2)>&amp;<!-- ]]> \"' </span></div></body>"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
VOID = {"meta", "input", "img", "br"}


@pytest.fixture(scope="module")
def model():
    return zoo.perturb(zoo.language_model()).eval()


class Page(HTMLParser):
    """Elements in order, and the text of those that are chunks."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.open, self.chunks, self.scripts = [], [], [], []
        self.feed(page)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if dict(attributes).get("role") == "option":
            self.chunks.append("")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts[-1] += data
        elif "span" in self.open[-2:] and self.chunks:
            self.chunks[-1] += data

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(model, text, title="A title"):
    return Page(report_page(read(model, text), title=title))


def bits(model, tokens, **how):
    with torch.no_grad():
        logits = model(tokens, **how)[0]
    return F.cross_entropy(logits, tokens[0], reduction="none") / math.log(2)


def test_a_reading_is_what_the_model_says(model):
    tokens = torch.tensor([list(TEXT)])
    reading, codes = read(model, TEXT), model.encode(tokens)
    assert (reading.codes, reading.ratio) == (int(codes.mask.sum()), float(codes.ratio))
    seen, hidden = bits(model, tokens), bits(model, tokens, codes="hidden")
    assert (reading.bits, reading.hidden) == pytest.approx((float(seen.mean()), float(hidden.mean())), abs=1e-5)
    assert reading.gain == pytest.approx(float((hidden - seen).mean()), abs=1e-5) and abs(reading.gain) > 1e-4
    assert [(chunk.start, chunk.length) for chunk in reading.chunks] == [(0, 16), (16, 16), (32, 16), (48, 16), (64, 8)]
    for chunk in reading.chunks:
        part = slice(chunk.start, chunk.start + chunk.length)
        assert chunk.bits == pytest.approx(float(seen[part].mean()), abs=1e-5)
        assert chunk.hidden == pytest.approx(float(hidden[part].mean()), abs=1e-5)
    assert reading.bands == ("cA2", "cD2", "cD1")
    energy = torch.tensor([chunk.energy for chunk in reading.chunks])
    torch.testing.assert_close(energy, codes.statistics["chunk_networks.0.band_energy"][0])


def test_codes_lie_where_their_bytes_are(model):
    first, *_, last = read(model, TEXT).chunks
    assert [(code.level, code.start, code.support) for code in first.codes] == [(2, 4.0 * n, 4.0) for n in range(4)]
    assert [code.start for code in last.codes] == [0.0, 4.0]


def test_of_several_stages_the_first_is_shown_and_all_are_counted():
    model = zoo.perturb(zoo.language_model(second=8)).eval()
    reading, codes = read(model, TEXT), model.encode(torch.tensor([list(TEXT)]))
    assert [len(chunk.codes) for chunk in reading.chunks] == [4, 4, 4, 4, 2]
    assert reading.codes == int(codes.mask.sum()) > 18
    assert [chunk.start for chunk in reading.chunks] == [0, 16, 32, 48, 64]


@pytest.mark.parametrize(
    "compressor, bands, kept",
    [
        (lambda: wc.NoCodes(), (), 0),
        (lambda: wc.MeanPoolCompressor(count=4), (), 18),
        (
            lambda: wc.WaveletCompressor(transform=wc.BestBasis1d("haar", level=2), pruner=wc.KeepLowpass(4)),
            ("aa", "ad", "dd", "da", "a", "d"),
            18,
        ),
    ],
)
def test_any_compressor_can_be_read(compressor, bands, kept):
    reading = read(zoo.perturb(zoo.language_model(compressor())).eval(), TEXT)
    assert reading.bands == bands and sum(len(chunk.codes) for chunk in reading.chunks) == kept
    page = Page(report_page(reading, title="x"))
    assert len(page.chunks) == 5 and all(len(chunk.energy) == len(bands) for chunk in reading.chunks)


def test_what_cannot_be_read_is_said(model):
    broken = zoo.language_model().eval()
    with torch.no_grad():
        broken.head.weight[0, 0] = torch.nan
    for one, text, message in (
        (model, b"", "text is empty; allowed: one byte and more"),
        (torch.nn.Linear(2, 2), TEXT, "model has type Linear; allowed: a ChunkReduceLM"),
        (broken, TEXT, "predictions are not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            read(one, text)


def test_the_page_holds_the_text_the_figures_and_the_chunks(model):
    reading = read(model, TEXT)
    source = report_page(reading, title="Title & <text>")
    page = Page(source)
    assert "".join(page.chunks) == TEXT.decode()
    assert "<title>Title &amp; &lt;text&gt;</title>" in source and "<h1>Title &amp; &lt;text&gt;</h1>" in source
    for figure in ("72", "18", "4.00", f"{reading.bits:.3f}", f"{reading.hidden:.3f}", f"{reading.gain:+.3f}"):
        assert f"<dd>{figure}</dd>" in source
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.of("meta")
    options = [a for a in page.of("span") if a.get("role") == "option"]
    assert len(options) == 5 and all("tabindex" in option and option["aria-selected"] for option in options)
    assert any(a.get("role") == "listbox" and a["aria-label"] for a in page.of("div"))
    data = json.loads(page.scripts[0])
    assert data["bands"] == list(reading.bands)
    assert [chunk[:2] for chunk in data["chunks"]] == [[0, 16], [16, 16], [32, 16], [48, 16], [64, 8]]
    assert data["chunks"][0][2:4] == pytest.approx([reading.chunks[0].bits, reading.chunks[0].hidden], abs=1e-3)
    assert data["chunks"][0][4] == pytest.approx(reading.chunks[0].energy, rel=1e-3)
    assert data["chunks"][4][5] == [[2, 0.0625, 0.0, 4.0], [2, 0.0625, 4.0, 4.0]]


def test_a_text_of_tags_is_text_and_the_page_loads_nothing(model):
    reading = read(model, HARM)
    page = Page(report_page(reading._replace(bands=("</script><b>", "x", "y")), title="x"))
    assert "".join(page.chunks) == HARM.decode()
    allowed = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "div",
        "header",
        "h1",
        "p",
        "dl",
        "dt",
        "dd",
        "fieldset",
    }
    allowed |= {"legend", "label", "input", "ul", "li", "span", "main", "aside", "noscript", "script", "i"}
    assert {tag for tag, _ in page.elements} <= allowed
    assert len(page.scripts) == 2 and json.loads(page.scripts[0])["bands"][0] == "</script><b>"
    assert not [a for _, a in page.elements if {"src", "href", "onerror", "onclick", "style"} & a.keys()]
    policy = page.of("meta")[1]["content"]
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy
    assert "http" not in report_page(reading, title="x").replace("http-equiv", "")


@pytest.mark.parametrize(
    "text, length, expected",
    [
        ("Zwölf".encode(), 3, ["Zwö", "lf"]),  # ö ends in the second chunk and stands in the first
        ("👩".encode() + b"!", 1, ["👩", "⋯", "⋯", "⋯", "!"]),
        (b"a\xff\xc3(\xed\xa0\x80", 4, ["a\\xff\\xc3(", "\\xed\\xa0\\x80"]),
        ("ö".encode()[:1], 4, ["\\xc3"]),  # cut off by the end
        (b"\x00\x1b[31m\x7f\r\n", 9, ["\\x00\\x1b[31m\\x7f\\x0d↵\n"]),
        ("\u202e\u200b\ufeff\u2028\x85".encode(), 99, ["U+202EU+200BU+FEFFU+2028U+0085"]),
        ("\t \u00a0\u3000漢é".encode(), 99, ["\t \u00a0\u3000漢é"]),
    ],
)
def test_every_byte_is_seen(text, length, expected):
    found = shown(text, length)
    assert [html.unescape(re.sub("</?i>", "", piece)) for piece in found] == expected
    assert sum(piece.count("<i>") for piece in found) == sum(piece.count("</i>") for piece in found)


def test_any_bytes_make_a_page(model):
    text = bytes(torch.randint(256, (200,)).tolist()) + bytes(range(256))
    page = page_of(model, text)
    assert len(page.chunks) == 29 and all(page.chunks)


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return sum(weight * x for weight, x in zip((0.2126, 0.7152, 0.0722), linear))


def contrast(one, other):
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scale, sign", [(LIGHT, -1), (DARK, 1)])
def test_colours_differ_in_lightness_and_leave_the_text_readable(scale, sign):
    assert all(contrast(colour, ink) >= 4.5 for colour, ink in scale)
    lightness = [116 * luminance(colour) ** (1 / 3) for colour, _ in scale]
    assert all(sign * (after - before) > 4 for before, after in itertools.pairwise(lightness))


def test_classes_span_what_is_usual_in_as_many_colours_as_there_are():
    found, names = whole_classes([4, 30, 17, 2], usual=[4, 30, 17])
    assert names == ["4 to 7", "8 to 11", "12 to 15", "16 to 19", "20 to 23", "24 to 27", "28 to 30"]
    assert found == [0, 6, 3, 0]
    assert whole_classes([3, 3, 1], usual=[3, 3]) == ([0, 0, 0], ["3"])
    found, names = classes([1.0, 8.0, 4.5])
    assert found == [0, 6, 3] and names[0] == "1.00 to 2.00" and len(names) == 7
    assert classes([2.0, 2.0]) == ([0, 0], ["2.00"])


def test_colour_begins_with_what_differs(model):
    assert 'data-by="bits"' in report_page(read(model, TEXT), title="x")
    adaptive = zoo.perturb(zoo.language_model(wc.DyadicLeaves(
        transform=wc.DWT1d("haar", level=4), target_ratio=4, dim=zoo.DIM, start=0.9
    ))).eval()  # fmt: skip
    reading = read(adaptive, b"a" * 32 + TEXT[:32])
    assert len({len(chunk.codes) for chunk in reading.chunks}) > 1
    assert 'data-by="kept"' in report_page(reading, title="x")


def test_a_file_is_whole_or_as_it_was(model, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    reading = wc.report.write_report(model, TEXT, path, title="x")
    assert path.read_text(encoding="utf-8") == report_page(reading, title="x")
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, b"other")
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_a_figure_becomes_a_picture_a_drawing_or_a_page(tmp_path):
    figure = Figure(figsize=(2, 1))
    ax = figure.add_subplot()
    ax.imshow([[0, 1]])
    for drawing, name in ((figure, "a.png"), (ax, "a.svg"), (ax, "a.HTML")):
        write_figure(drawing, tmp_path / name, title="<energy>")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "a.svg").read_text()
    assert svg.startswith("<?xml") and "<dc:date>" not in svg
    source = (tmp_path / "a.HTML").read_text()
    page = HTMLParser()
    page.feed(source)
    assert source.startswith("<!DOCTYPE html>") and source.count("<!DOCTYPE") == 1 and "<?xml" not in source
    assert 'aria-label="&lt;energy&gt;"' in source and "<script" not in source and "<svg" in source
    assert all(link.startswith(("#", "data:")) for link in re.findall(r'(?:href|src)="([^"]*)"', source))
    with pytest.raises(ValueError, match=r"suffix '.pdf'; allowed: .png, .svg, .html"):
        write_figure(figure, tmp_path / "a.pdf", title="x")
    assert "<svg" in figure_page("<?xml?><svg></svg>", title="x")


WALK = """
const heads = [];
const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const note = () => heads.push(document.querySelector("#chunk h2").textContent);
document.querySelector('#text > [tabindex="0"]').focus(); note();
press("ArrowRight"); note(); press("End"); note(); press("ArrowRight"); note(); press("ArrowLeft"); note();
press("Home"); note();
document.querySelector("#text > :nth-child(3)").click(); note();
document.querySelector("input[value=kept]").click();
document.title = JSON.stringify({heads, focus: document.activeElement.textContent,
  by: document.querySelector(".page").dataset.by, rows: document.querySelectorAll("#chunk .row").length,
  stops: document.querySelectorAll('#text > [tabindex="0"]').length,
  wide: document.documentElement.scrollWidth > innerWidth});
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_in_a_browser_keys_move_and_the_chunk_is_told(model, tmp_path):
    source = report_page(read(model, HARM), title="x")
    # the page's own policy would not run what walks through it
    walked = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", source)
    walked = walked[: walked.rindex("</body>")] + f"<script>{WALK}</script></body></html>"
    (tmp_path / "page.html").write_text(walked, encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={tmp_path / 'user'}", "--window-size=500,800", "--dump-dom"]
    done = subprocess.run([*command, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=60)
    found = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout).group(1)))
    assert found["heads"] == [f"Chunk {n} of 6" for n in (1, 2, 6, 6, 5, 1, 3)]
    assert found["focus"] == page_of(model, HARM).chunks[2] and found["stops"] == 1
    assert found["by"] == "kept" and not found["wide"]
    assert found["rows"] == 3 + 1 + 1  # bands, codes of one level, and their axis
