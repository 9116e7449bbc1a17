"""Opens reports in headless Chromium and uses them like a reader.

Fails if text of a session runs, if the page makes a request or writes to the console, if the accessibility audit (axe)
finds a violation, or if a control does not work. Prints size and loading time of each page.

    browse.py CHROMIUM FOLDER [SHOTS]

opens every page of FOLDER, and writes screenshots to SHOTS.
"""

import pathlib
import sys
import time

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
# Characters that hide, reorder or break text. The page must contain none of them.
HIDDEN = "\u0000\u001b\u2028\u202e\ufeff\U000e0041"

chromium, folder = sys.argv[1], pathlib.Path(sys.argv[2]).absolute()
shots = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else None


class Page:
    """A report in its own browser context. Keeps console messages, errors, dialogs and requests."""

    def __init__(self, browser, path, width=1280, **more):
        self.path, self.messages = path, []
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **more)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.messages.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.messages.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.messages.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.record_request(request.url))
        self.open()

    def record_request(self, url):
        if not url.startswith(("data:", "blob:")) and url.split("#")[0] != self.path.as_uri():
            self.messages.append(f"request: {url}")

    def open(self, fragment=""):
        self.page.goto("about:blank")
        began = time.monotonic()
        self.page.goto(self.path.as_uri() + fragment)
        # The page's content security policy forbids evaluation, so wait for a selector.
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
        assert self.page.evaluate("window.hostile") is None, f"{self.path.name}: text of a session ran"
        text = self.page.evaluate("document.documentElement.textContent")
        assert not set(HIDDEN) & set(text), f"{self.path.name}: the page contains hidden characters"
        assert not self.messages, f"{self.path.name}: {self.messages}"
        self.context.close()


def wait_for_case(page, number=0):
    page.locator(".case").nth(number).locator(".lanes").wait_for()


def read(one):
    page = one.page
    assert page.locator("#interval-chart svg.chart").count() > 0, "no interval is drawn"
    one.audit("as opened")
    one.shot("light")
    one.shot("light-whole", full_page=True)
    # Keyboard only: search, then the first case.
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    listed = page.locator(".case").count()
    page.keyboard.type("in no session")
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
    # Another trial of the candidate, if there are several.
    others = page.locator(".case").first.locator(".endings button[aria-pressed=false]")
    if others.count():
        others.last.click()
        assert page.locator(".case").first.locator(".endings button[aria-pressed=true]").count() == 1


def follow_links(one):
    page = one.page
    last = page.locator(".case").last.get_attribute("id")
    one.open(f"#{last}")
    page.wait_for_selector(f"[id='{last}'][open] .lanes")
    assert page.evaluate("document.activeElement.parentElement.id") == last, "the linked case has no focus"
    tool = page.locator("#writes tbody a").first.get_attribute("href")
    one.open(tool)
    assert page.locator("#tool").input_value() or page.locator("#count").inner_text(), "the link does not filter"
    one.open("#show=worse")
    assert page.locator("#change").input_value() == "worse"


def open_everything(one):
    """Opens every case and every trial of the hostile page."""
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
        read(one)
        follow_links(one)
        if path.stem == "hostile":
            one.open()
            open_everything(one)
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
