"""A person's way through the catalog, in headless Chromium: the list, a search, a view, its snippets."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Page, Request, expect, sync_playwright

from marketplace.app import make_app
from marketplace.facts import Facts, MemoryFacts

pytestmark = pytest.mark.browser


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of Debian's Chromium, which knows no proxy and no cache."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("This test needs headless Chromium: install the package chromium.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


@pytest.fixture
def catalog(make_facts: Callable[..., Facts], examples: Any) -> Iterator[str]:
    """The address of a catalog of the shop, served by uvicorn on a free port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(make_app(MemoryFacts(make_facts(), examples)), log_level="warning", ws="none")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listener.close()


def test_a_newcomer_finds_a_feature_and_how_to_use_it(page: Page, catalog: str) -> None:
    elsewhere: list[str] = []
    mistakes: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith((catalog, "data:")):
            elsewhere.append(request.url)

    page.on("request", note)
    page.on("console", lambda line: mistakes.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: mistakes.append(str(error)))

    page.goto(catalog)
    expect(page.get_by_role("heading", name="Feature views")).to_be_visible()
    expect(page.locator(".views > li")).to_have_count(3)

    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("custmer spend")
    page.keyboard.press("Enter")
    expect(page.locator(".views > li")).to_have_count(1)
    expect(page.get_by_role("status")).to_contain_text("1 view for")

    page.get_by_role("link", name="customer_spend").click()
    expect(page.get_by_role("heading", name="customer_spend")).to_be_visible()
    expect(page.get_by_role("region", name="Measured facts")).to_contain_text("4,372 of 4,372 equal")
    expect(page.locator("pre[data-snippet=training]")).to_be_visible()
    expect(page.locator("pre[data-snippet=training]")).to_contain_text('"customer_id": [17850, 13047]')
    expect(page.locator("pre[data-snippet=serving]")).to_contain_text("headwater.Client(")

    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(".snippet").last.get_by_role("button", name="Copy").click()
    expect(page.locator(".snippet").last.get_by_role("button")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()").startswith("import headwater\n")

    page.get_by_role("link", name="churn").click()
    expect(page.get_by_role("heading", name="churn")).to_be_visible()
    assert (elsewhere, mistakes) == ([], [])


def test_a_narrow_page_does_not_scroll_sideways(page: Page, catalog: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    for address in ("/", "/views/customer_spend", "/services/churn", "/sources/invoice_lines", "/api"):
        page.goto(catalog + address)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, address


def test_dark_and_light_are_both_readable(page: Page, catalog: str) -> None:
    colors = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(catalog)
        colors[scheme] = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
    assert colors["light"] == ["rgb(251, 251, 250)", "rgb(28, 35, 38)"]
    assert colors["dark"] == ["rgb(19, 23, 25)", "rgb(228, 232, 233)"]
