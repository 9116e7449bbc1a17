"""Opens reports in headless Chromium: nothing of a session runs, nothing is asked of the network, nothing is said on the
console, an accessibility audit (axe) finds nothing, and what a reader does with the page works. Prints what it measured.

    browse.py CHROMIUM FOLDER [SHOTS]

opens every page of the folder; with SHOTS it leaves pictures of them there.
"""

import pathlib
import sys
import time

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
# What must never reach the page as such: it hides, reorders or breaks text.
HIDDEN = "\u0000\u001b\u2028\u202e\ufeff\U000e0041"

chromium, folder = sys.argv[1], pathlib.Path(sys.argv[2]).absolute()
shots = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else None


class Page:
    """One report in a browser of its own; whatever it says or asks for is kept."""

    def __init__(self, browser, path, width=1280, **more):
        self.path, self.said = path, []
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **more)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked(request.url))
        self.open()

    def asked(self, url):
        if not url.startswith(("data:", "blob:")) and url.split("#")[0] != self.path.as_uri():
            self.said.append(f"request: {url}")

    def open(self, place=""):
        self.page.goto("about:blank")
        began = time.monotonic()
        self.page.goto(self.path.as_uri() + place)
        # The page's policy forbids evaluation, so waiting goes by selectors.
        self.page.wait_for_selector("html[data-ready=true]", state="attached", timeout=60_000)
        self.seconds = time.monotonic() - began

    def audit(self, when):
        found = [(one["id"], one["help"], [node["html"][:160] for node in one["nodes"][:3]])
                 for one in Axe().run(self.page).response["violations"]]
        assert not found, f"{self.path.name}, {when}: axe found {found}"

    def shot(self, name, **more):
        if shots:
            self.page.screenshot(path=shots / f"{self.path.stem}-{name}.png", **more)

    def close(self):
        assert self.page.evaluate("window.hostile") is None, f"{self.path.name}: a session's text was run"
        text = self.page.evaluate("document.documentElement.textContent")
        assert not set(HIDDEN) & set(text), f"{self.path.name}: hidden characters are in the page"
        assert not self.said, f"{self.path.name}: {self.said}"
        self.context.close()


def wait_for_case(page, number=0):
    page.locator(".case").nth(number).locator(".lanes").wait_for()


def reading(one):
    page = one.page
    assert page.locator("#interval-chart svg.chart").count() > 0, "the intervals are drawn"
    one.audit("as opened")
    one.shot("light")
    one.shot("light-whole", full_page=True)
    # The keyboard alone: search, then the first case.
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    listed = page.locator(".case").count()
    page.keyboard.type("no session says this")
    expect(page.locator(".case")).to_have_count(0)
    page.locator("#filters button[type=reset]").click()
    expect(page.locator(".case")).to_have_count(listed)
    page.locator(".case summary").first.focus()
    page.keyboard.press("Enter")
    wait_for_case(page)
    assert page.locator(".case").first.locator("table.trace").count() == 1
    one.audit("with a case open")
    page.locator(".case").first.scroll_into_view_if_needed()
    page.locator(".case").first.evaluate("box => box.scrollIntoView()")
    one.shot("case")
    # Another trial of the candidate, where there are more.
    others = page.locator(".case").first.locator(".endings button[aria-pressed=false]")
    if others.count():
        others.last.click()
        assert page.locator(".case").first.locator(".endings button[aria-pressed=true]").count() == 1


def links(one):
    page = one.page
    last = page.locator(".case").last.get_attribute("id")
    one.open(f"#{last}")
    page.wait_for_selector(f"[id='{last}'][open] .lanes")
    assert page.evaluate("document.activeElement.parentElement.id") == last, "the linked case has the focus"
    tool = page.locator("#writes tbody a").first.get_attribute("href")
    one.open(tool)
    assert page.locator("#tool").input_value() or page.locator("#count").inner_text(), "the link filters"
    one.open("#show=worse")
    assert page.locator("#change").input_value() == "worse"


def everything_opened(one):
    """Every case and every trial of a page whose every text is hostile."""
    page = one.page
    for case in range(page.locator(".case").count()):
        box = page.locator(".case").nth(case)
        box.locator("summary").first.click()
        wait_for_case(page, case)
        for button in range(box.locator(".endings button").count()):
            box.locator(".endings button").nth(button).click()
    assert page.evaluate("document.querySelectorAll('main script, main img, main iframe, main [onload], main [onerror]').length") == 0
    assert page.evaluate("[...document.links].every(link => link.getAttribute('href').startsWith('#'))")
    one.audit("with every case open")


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
    for path in sorted(folder.glob("*.html")):
        one = Page(browser, path)
        first = one.seconds
        reading(one)
        links(one)
        if path.stem == "hostile":
            one.open()
            everything_opened(one)
        pdf = one.page.pdf(format="A4", path=shots / f"{path.stem}.pdf" if shots else None)
        one.close()
        dark = Page(browser, path, color_scheme="dark")
        dark.audit("dark")
        dark.shot("dark")
        dark.shot("dark-whole", full_page=True)
        dark.close()
        narrow = Page(browser, path, width=390)
        wide = narrow.page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{path.name}: scrolls {wide} px to the side on a narrow screen"
        narrow.audit("narrow")
        narrow.shot("narrow", full_page=True)
        narrow.close()
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, ready in {first:.2f} s, printed {len(pdf) / 1e3:.0f} kB")
    browser.close()
