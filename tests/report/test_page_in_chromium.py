"""The report in a real browser: Debian's Chromium, headless, driven by Playwright."""

import io
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from matplotlib.image import imread

CHROMIUM = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = (
    *("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
)
"""WebGL without a GPU, and nothing that asks for a network."""
pytestmark = pytest.mark.slow


class Opened(NamedTuple):
    """A page and what it asked for and complained about."""

    page: Any
    problems: list[str]
    requests: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("Chromium is absent: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, page_file, request) -> Iterator[Opened]:
    width, scheme = getattr(request, "param", (1400, "light"))
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda asked: requests.append(asked.url))
    page.goto(page_file.as_uri())
    yield Opened(page, problems, requests)
    page.close()


def start_viewer(page: Any) -> Any:
    page.locator("#viewer").scroll_into_view_if_needed()
    page.wait_for_selector("#viewer[data-ready=true]", timeout=120_000)
    page.wait_for_timeout(1000)
    return page.locator("#viewer .stage")


def pixels(place: Any) -> np.ndarray:
    return imread(io.BytesIO(place.screenshot()))[..., :3]


@pytest.mark.parametrize("opened", [(400, "dark"), (1400, "light")], indirect=True)
def test_it_loads_without_errors_and_fits(opened):
    start_viewer(opened.page)
    assert opened.problems == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= opened.page.viewport_size["width"]
    assert all(address.startswith(("file:", "blob:", "data:")) for address in opened.requests)


@pytest.mark.parametrize("opened", [(400, "light"), (1000, "dark"), (1400, "light")], indirect=True)
def test_no_column_is_cut_off_and_letters_of_charts_can_be_read(opened):
    page = opened.page
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    page.wait_for_timeout(500)
    widths = page.evaluate(
        "[...document.querySelectorAll('.scroll')].map((each) => [each.scrollWidth, each.clientWidth])"
    )
    assert len(widths) >= 3
    assert all(wanted <= there for wanted, there in widths)
    last = page.locator("#compare tbody tr").first.locator("td").last
    assert last.is_visible()
    box = last.bounding_box()
    assert box["x"] + box["width"] <= page.viewport_size["width"]
    sizes = page.evaluate(
        "[...document.querySelectorAll('.chart svg')].filter((each) => each.clientWidth > 0)"
        ".map((each) => 11 * each.clientWidth / each.viewBox.baseVal.width)"
    )
    assert sizes
    assert min(sizes) >= 11, "pixels of letters of 11 points"


@pytest.mark.parametrize("opened", [(400, "light")], indirect=True)
def test_rows_are_blocks_with_headings_on_a_phone_and_sort(opened):
    table = opened.page.locator("#compare table")
    cells = table.locator("tbody tr").first.locator("td")
    assert cells.first.get_attribute("data-heading") == "Dice"
    assert table.locator("tbody th").first.get_attribute("role") == "rowheader"
    table.locator("th", has_text="Dice").first.get_by_role("button").click()
    column = [float(text) for text in table.locator("tbody tr td:nth-child(2)").all_text_contents()]
    assert column == sorted(column, reverse=True)


def test_tables_sort(opened):
    table = opened.page.locator("#compare table")
    heading = table.locator("th", has_text="Dice").first

    def column() -> list[float]:
        return [float(text) for text in table.locator("tbody tr td:nth-child(2)").all_text_contents()]

    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert column() == sorted(column(), reverse=True)
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert column() == sorted(column())


def test_the_viewer_shows_a_case_and_what_is_said_of_it(opened):
    page = opened.page
    stage = start_viewer(page)
    predicted = pixels(stage)
    opacity = page.locator("input[name=opacity]")
    opacity.fill("0")
    image = settled(page, stage)
    grey = np.ptp(image, axis=2) < 0.02
    assert (grey & (image[..., 0] > 0.2)).mean() > 0.01, "an image"
    opacity.fill("100")
    full = settled(page, stage)
    assert (np.ptp(full, axis=2) > 0.1).mean() > (np.ptp(image, axis=2) > 0.1).mean(), "labels over it"
    page.get_by_label("truth", exact=True).check()
    assert not np.array_equal(settled(page, stage), full)
    page.get_by_label("solid", exact=True).check()
    assert not np.array_equal(settled(page, stage), predicted)
    assert "Dice" in page.locator("#viewer [role=status]").text_content()
    assert opened.problems == []


def test_without_webgl_the_page_says_so(browser, page_file):
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(page_file.as_uri())
    page.locator("#viewer").scroll_into_view_if_needed()
    page.get_by_text("It needs WebGL 2").wait_for()
    assert page.locator("#viewer select").is_disabled()
    assert problems == []
    page.close()


def settled(page: Any, place: Any) -> np.ndarray:
    """The pixels once what was asked for is drawn."""
    page.wait_for_timeout(700)
    return pixels(place)
