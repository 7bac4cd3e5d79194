"""Pages opened in headless Chromium, and what a person would find there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
"""Debian's; ``.ci/run`` installs it where it is not there."""

OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
)

SMALLEST, LARGEST = 10.5, 1.0
"""Pixels of a letter that a person reads on a screen; pixels by which text may stand over its box (fonts are rounded)."""

FACTS = """() => {
  const size = (each) => parseFloat(getComputedStyle(each).fontSize) * each.getCTM().a;
  const wrong = [], boxes = [];
  for (const box of document.querySelectorAll("svg.graph g:has(> rect)")) {
    const rect = box.querySelector("rect").getBoundingClientRect();
    for (const text of box.querySelectorAll("text")) {
      const is = text.getBoundingClientRect();
      if (size(text) < SMALLEST) wrong.push(`${text.textContent} is ${size(text)} px`);
      if (is.left < rect.left - OVER || is.right > rect.right + OVER || is.bottom > rect.bottom + OVER) wrong.push(`${text.textContent} leaves its box`);
    }
    const texts = [...box.querySelectorAll(":scope > g")].map((row) => [...row.querySelectorAll("text")].map((each) => each.getBoundingClientRect()));
    for (const [left, right] of texts) if (right && left.right > right.left + OVER) wrong.push(`${box.textContent} runs into its shape`);
    if (rect.width > 20) boxes.push([box.closest("svg"), rect]);
  }
  boxes.forEach(([here, a], at) => boxes.slice(at + 1).forEach(([there, b]) => {
    if (here === there && Math.min(a.right, b.right) - Math.max(a.left, b.left) > OVER && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > OVER) wrong.push("two boxes lie on each other");
  }));
  return [boxes.length, wrong];
}""".replace("SMALLEST", str(SMALLEST)).replace("OVER", str(LARGEST))

CONTRAST = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  let least = 21;
  for (const text of document.querySelectorAll("svg.graph g:has(> rect) text, svg.graph g:has(> rect) tspan")) {
    const box = text.closest("g:has(> rect)").querySelector("rect");
    least = Math.min(least, ratio(numbers(getComputedStyle(text).fill), numbers(getComputedStyle(box).fill)));
  }
  const paper = numbers(getComputedStyle(document.body).backgroundColor);
  for (const text of document.querySelectorAll("p, td, th, h1, h2, h3, a, li, button, summary")) {
    if (text.textContent.trim() && !text.closest("button") && !text.closest(".facts")) least = Math.min(least, ratio(numbers(getComputedStyle(text).color), paper));
  }
  return [least, light(paper)];
}"""


@contextmanager
def opened(path: Path, scheme: str = "light") -> Iterator[Page]:
    """A page at 1400 x 900; nothing may be said on the console, no error thrown, and nothing asked for beside the file."""
    said, asked = list[str](), list[str]()
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page = browser.new_page(viewport={"width": 1400, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.resolve().as_uri())
        yield page
        page.wait_for_timeout(50)
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.resolve().as_uri()]


def require_legible(page: Page) -> None:
    """Every letter of every drawing large enough and in its box, and no box on another."""
    count, wrong = page.evaluate(FACTS)
    assert count > 0
    assert wrong == []


def require_contrast(page: Page, scheme: str) -> None:
    """4.5 to 1, as WCAG 2.2 asks of text, on a page that is light or dark as asked."""
    least, paper = page.evaluate(CONTRAST)
    assert least >= 4.5
    assert (paper > 0.5) == (scheme == "light")
