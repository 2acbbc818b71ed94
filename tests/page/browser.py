"""The page in a real browser: `make test-page` runs this, `make test` does not (it needs Chromium).

`SENET_BROWSER` is the browser's path; screenshots go to `SENET_SCREENSHOTS` where that is set.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, expect, sync_playwright

from senet.gates.diagnosis.diagnosis import diagnose
from senet.gates.recording.record import Gates
from senet.gates.report import write_page
from senet.gates.report.grad_cam import GradCam
from tests.gates.simulated import diagnosed, names, se_resnet50, simulated

VIEWS = ("curves", "spread", "heat", "histogram", "squeeze", "hidden")
PLAN = [
    ("layer1.0.se", 2, 1, 64, "class-agnostic"),
    ("layer2.0.se", 3, 1, 128, "class-specific"),
    ("layer3.0.se", 4, 1, 256, "saturated on"),
]
# Every chart is drawn, has a name, and has a table.
DRAWN = "() => [...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('svg, canvas, .empty'))"
UNNAMED = "[...document.querySelectorAll('.plot:not([aria-label])')].map((plot) => plot.outerHTML)"
TABLES = """() => [...document.querySelectorAll('figure')].every(
    (figure) => figure.querySelector('.empty') || figure.querySelector('tbody tr'))"""
SHOTS = os.environ.get("SENET_SCREENSHOTS")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Chromium's sandbox refuses to run as root.
    options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=os.environ["SENET_BROWSER"], args=options)
        yield started
        started.close()


Visit = Callable[..., Page]


def _collect(page: Page, own: str, complaints: list[str]) -> None:
    """Add a page's errors, dialogs and requests of anything but itself to the complaints."""

    def log(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    def show(dialog: Dialog) -> None:
        complaints.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def fetch(request: Request) -> None:
        if not request.url.startswith((own, "data:", "blob:")):
            complaints.append(request.url)

    page.on("console", log)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", show)
    page.on("request", fetch)


@pytest.fixture
def visit(browser: Browser, tmp_path: Path) -> Iterator[Visit]:
    """Writes a page, opens it, and fails at the end if it complained or fetched anything."""
    complaints: list[str] = []
    contexts = []

    def open_page(
        gates: Gates, *, width: int = 1400, scheme: str = "light", before: str = "", **options: object
    ) -> Page:
        path = tmp_path / "gates.html"
        write_page(gates, options.pop("diagnosis", None) or diagnosed(gates), path, **options)
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        own = path.as_uri()
        _collect(page, own, complaints)
        if before:
            page.add_init_script(before)
        page.goto(own)
        page.wait_for_selector("html[data-ready], [role=alert]", timeout=30_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def shoot(page: Page, name: str) -> None:
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


def look_at_everything(page: Page) -> None:
    """Every view of the selected block, and every table."""
    for view in VIEWS:
        page.locator(f"#tab-{view}").click()
        expect(page.locator(f"#tab-{view}")).to_have_attribute("aria-selected", "true")
        assert page.locator("#view").inner_text().strip()
        page.wait_for_function(DRAWN)
        assert page.evaluate(UNNAMED) == [], "pictures that a screen reader cannot name"
        page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
        page.wait_for_function(TABLES)
        tables = page.evaluate("[...document.querySelectorAll('figure table')].map((table) => table.innerText).join()")
        assert not re.search("NaN|undefined|null|Infinity", tables)
        page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = false))")
    assert not re.search(r"\b(NaN|undefined|null|Infinity)\b", page.locator("main").inner_text())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than the window"


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_of_every_block(visit: Visit, width: int, scheme: str) -> None:
    page = visit(simulated(PLAN, names(12)), width=width, scheme=scheme)
    expect(page.get_by_role("radio")).to_have_count(3)
    for block in range(3):
        page.get_by_role("radio").nth(block).click()
        label = f"SE_{block + 2}_1"
        expect(page.locator("#block h2")).to_have_text(label)
        expect(page.locator("#channels-title")).to_have_text(f"Channels of {label}")
        look_at_everything(page)
        if block == 1:
            for view in VIEWS:
                page.locator(f"#tab-{view}").click()
                shoot(page, f"{view}-{width}-{scheme}")


def test_verdicts_are_words_and_not_colours_alone(visit: Visit) -> None:
    gates = simulated(PLAN, names(12))
    verdicts = ("class-agnostic", "class-specific", "saturated on")
    page = visit(gates, diagnosis=diagnosed(gates, verdicts))
    for cell, verdict in zip(page.get_by_role("radio").all(), verdicts, strict=True):
        assert verdict in cell.inner_text()
    assert "1 saturated on" in page.locator(".lede").inner_text()
    assert "points of top-1 error" in page.locator("#depth").inner_text()


def test_opens_on_the_block_that_matters_most(visit: Visit) -> None:
    gates = simulated(PLAN, names(12))
    page = visit(gates)  # the class-specific block has the largest change of the error
    expect(page.locator("#block h2")).to_have_text("SE_3_1")
    expect(page.get_by_role("radio").nth(1)).to_have_attribute("aria-checked", "true")
    assert page.locator(".lede").inner_text().startswith("SE_3_1 matters most: with its gates held at their means")


@pytest.mark.parametrize("width", [1400, 400])
def test_grad_cam_is_next_to_the_findings(visit: Visit, width: int) -> None:
    gates = simulated(PLAN, names(12))
    heat = np.zeros((2, 4, 4), np.float32)
    heat[:, 1, 1] = 1
    page = visit(gates, width=width, grad_cam=GradCam(np.array([0, 1]), {gates.blocks[1].name: heat}))
    expect(page.locator(".cam canvas")).to_have_count(4)  # each image, and the image with its map
    assert page.locator(".cam canvas[role=img]").evaluate_all("(all) => all.every((one) => one.ariaLabel)")
    shoot(page, f"grad-cam-{width}")
    page.get_by_role("radio").nth(0).click()
    expect(page.locator(".cam")).to_contain_text("no map of two dimensions")
    look_at_everything(page)


def test_more_to_scroll_to_is_hinted(visit: Visit) -> None:
    page = visit(simulated(PLAN, names(12)), width=400)
    tabs = page.locator(".tabs")
    assert tabs.evaluate("(tabs) => tabs.scrollWidth > tabs.clientWidth")
    shadows = tabs.evaluate("(tabs) => getComputedStyle(tabs).backgroundAttachment")
    assert sorted(shadows.split(", ")) == ["local", "local", "scroll", "scroll"]


def test_tables_hold_the_recorded_numbers(visit: Visit) -> None:
    gates = simulated(PLAN, names(12))
    page = visit(gates)
    page.get_by_role("radio").nth(1).click()
    page.locator("#which").select_option("all")
    page.locator("#order").select_option("eta")
    page.locator("#view summary").click()
    statistics = gates.blocks[1].gates
    rows = [row.split("\t") for row in page.locator("#view tbody").inner_text().split("\n")]
    assert len(rows) == 128
    columns = page.locator("#view thead th").all_inner_texts()
    chosen = [gates.classes.index(name) for name in columns[2:]]
    assert len(chosen) == 4
    eta = statistics.between / (statistics.between + statistics.within)
    order = [int(row[0]) for row in rows]
    assert all(eta[a] >= eta[b] - 1e-4 for a, b in pairwise(order))
    for row in rows:
        channel = int(row[0])
        expected = [statistics.mean[channel], *statistics.means[chosen, channel]]
        assert [float(cell) for cell in row[1:]] == pytest.approx(expected, abs=0.0006)


def test_everything_works_by_keyboard(visit: Visit) -> None:
    page = visit(simulated(PLAN, names(12)))
    keys = page.keyboard
    for _ in range(10):
        keys.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "radio":
            break
    keys.press("Home")
    keys.press("ArrowRight")
    expect(page.locator("#block h2")).to_have_text("SE_3_1")
    assert page.evaluate("document.activeElement.getAttribute('aria-checked')") == "true"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    keys.press("End")
    expect(page.locator("#block h2")).to_have_text("SE_4_1")
    keys.press("Home")
    # Blocks can be selected in the charts by depth, too.
    page.locator("#depth .plot").first.focus()
    keys.press("ArrowRight")
    expect(page.locator("#block h2")).to_have_text("SE_3_1")
    # Channels, one after the other.
    plot = page.locator("#view .plot")
    plot.focus()
    keys.press("Home")
    first = page.locator("#channel-number").input_value()
    keys.press("ArrowRight")
    assert page.locator("#channel-number").input_value() != first
    assert f"channel {page.locator('#channel-number').input_value()}" in plot.get_attribute("aria-valuetext")
    expect(page.locator("#view .tip")).to_be_visible()
    keys.press("Escape")
    expect(page.locator("#view .tip")).to_be_hidden()
    # A class by name.
    page.locator("#class-search").focus()
    keys.type("class 011")
    keys.press("Enter")
    expect(page.locator(".class-chips")).to_contain_text("class 011")
    keys.press("Backspace")
    expect(page.locator(".class-chips")).not_to_contain_text("class 011")
    keys.press("Escape")
    expect(page.locator("#class-list")).to_be_hidden()
    # Views, and the cells of the heat map.
    page.locator("#tab-curves").focus()
    keys.press("ArrowRight")
    keys.press("ArrowRight")
    expect(page.locator("#tab-heat")).to_be_focused()
    page.locator("#view .plot").focus()
    keys.press("ArrowRight")
    keys.press("ArrowDown")
    expect(page.locator(".readout")).to_contain_text("mean gate")
    before = page.locator("#channel-number").input_value()
    for _ in range(3):
        keys.press("ArrowLeft")
    keys.press("Enter")
    assert page.locator("#channel-number").input_value() != before
    page.locator("#channel-number").fill("7")
    keys.press("Enter")
    expect(page.locator("#channel-number")).to_have_value("7")
    page.locator("#channel-number").fill("99999")
    keys.press("Enter")
    expect(page.locator("#channel-number")).to_have_value("127")


def test_pointer_shows_numbers_and_chooses(visit: Visit) -> None:
    page = visit(simulated(PLAN, names(12)))
    page.get_by_role("radio").nth(1).click()
    for view in ("curves", "heat"):
        page.locator(f"#tab-{view}").click()
        plot = page.locator("#view .plot")
        plot.hover(position={"x": 320, "y": 60})
        tip = page.locator("#view .tip")
        expect(tip).to_be_visible()
        number = tip.locator("strong").inner_text().split()[1].rstrip(",")
        plot.click(position={"x": 320, "y": 60})
        expect(page.locator("#channel-number")).to_have_value(number)
    # The classes at the ends of a channel can be added.
    page.locator("#tab-curves").click()
    add = page.locator(".ends button[aria-pressed=false]").first
    name = add.get_attribute("title").removeprefix("Show ")
    add.click()
    expect(page.locator(".class-chips")).to_contain_text(name[:20])
    page.get_by_role("button", name=f"Remove {name}").click()
    expect(page.locator(".class-chips")).not_to_contain_text(name[:20])


def test_colours_follow_the_system_and_the_switch(visit: Visit) -> None:
    page = visit(simulated(PLAN[:1], names(3)), scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.locator("#theme").click()
    light = page.evaluate(ground)
    assert dark != light
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    assert page.evaluate(ground) == light
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_names_of_strangers_do_no_harm(visit: Visit) -> None:
    evil = [
        "</script><script>alert(1)</script>",
        "<img src=x onerror=alert(2)>",
        "\"'><svg onload=alert(3)>",
        "${alert(4)}",
    ]
    plan = [("<b>block</b>", None, 1, 40, "class-specific")]
    gates = simulated(plan, evil, network="<script>alert(5)</script>")
    gates.data = "</script><script>alert(6)</script>"
    found = diagnosed(gates, ["<i onmouseover=alert(7)>bad</i>"])
    block = replace(found.blocks[0], reasons=(evil[0],), advice=(evil[1],), figures={evil[2]: 1.0})
    page = visit(gates, diagnosis=replace(found, blocks=(block,), advice=(evil[0],)))
    look_at_everything(page)
    page.locator("#tab-curves").click()
    page.locator("#view .plot").hover()
    page.locator("#class-search").focus()
    # Nothing that a name could have brought: the page itself has none of these.
    assert page.locator("img, main script, [onerror], [onload], [onmouseover]").count() == 0
    assert page.locator("h1").inner_text() == "Gates of <script>alert(5)</script>"
    assert evil[0] in page.locator("#network").inner_text()
    assert page.locator("#block h2").inner_text() == "<b>block</b>"


def test_an_old_browser_gets_a_message_of_what_it_lacks(visit: Visit) -> None:
    # The page also raises an error, which is expected.
    quiet = "addEventListener('unhandledrejection', (event) => event.preventDefault())"
    page = visit(simulated(PLAN[:1], names(3)), before=f"delete window.DecompressionStream; {quiet}")
    expect(page.get_by_role("alert")).to_contain_text("Firefox 113")


SMALL = {
    "one block": simulated(PLAN[1:2], names(12)),
    "two classes": simulated(PLAN, names(2)),
    "one class": simulated(PLAN, names(1)),
    "no stages": simulated([(f"features.{n}.fancy.se_module", None, 1, 16, "varied") for n in range(40)], names(5)),
    "squeeze none": simulated(PLAN, names(3), squeeze="none"),
    "no thumbnails": simulated(PLAN, names(6), thumbnail=None),
    "no sample": simulated(PLAN, names(6), sample=0, thumbnail=None),
    "one image": simulated(PLAN, names(6), sample=1),
    "one layer": simulated(PLAN, names(6), layers=1),
    "one channel": simulated([("a.se", 2, 1, 1, "varied")], names(6)),
    "unseen classes": simulated(PLAN, names(9), missing=(0, 2, 4, 8)),
    "constant": simulated([("a.se", 2, 1, 32, "constant")], names(4)),
    "stopped": replace(simulated(PLAN, names(4)), complete=False),
}


@pytest.mark.parametrize("gates", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize("width", [1400, 400])
def test_any_recording(visit: Visit, gates: Gates, width: int) -> None:
    page = visit(gates, width=width, diagnosis=diagnose(gates))
    page.get_by_role("radio").last.click()
    look_at_everything(page)
    name = next(key for key, value in SMALL.items() if value is gates)
    shoot(page, f"{name.replace(' ', '-')}-{width}")
    if not gates.complete:
        assert "incomplete" in page.locator("main").inner_text()


def test_thousand_classes(visit: Visit) -> None:
    page = visit(se_resnet50(1000))
    page.get_by_role("radio").nth(9).click()
    look_at_everything(page)
    page.locator("#tab-curves").click()
    page.locator("#class-search").fill("class 77")
    expect(page.locator("#class-list [role=option]")).to_have_count(10)
    page.locator("#class-list [role=option]").nth(7).click()
    expect(page.locator(".class-chips")).to_contain_text("class 777")
    page.locator("#which").select_option("all")
    expect(page.locator("#view figcaption")).to_contain_text("class 777, with")
    expect(page.locator("#view figcaption")).to_contain_text("sampled channels only")
    expect(page.locator("#foot")).to_contain_text("50 randomly sampled channels of a block")
    shoot(page, "thousand-classes")
