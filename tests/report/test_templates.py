"""The templates and their scripts: a page is opened in a headless Chromium, searched, sorted, printed and audited."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_portfolio import fake_portfolio

from longtail.compare.comparison import compare_runs
from longtail.data.audit.inspection import inspect_data
from longtail.data.dataset import ImageData, Split
from longtail.report import plots as figures
from longtail.report import write_report
from longtail.report.audit import write_audit
from longtail.report.sections import classes as sections
from longtail.run.portfolio import write_portfolio

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'longtail[dev]'")

SIX = (300, 120, 60, 30, 12, 5)
NAMES = ["lynx", "wild cat", "cat", "dog", "house mouse", "kiwi"]
SIZES = {"width": 1280, "height": 900}
EVERYTHING = [
    "results",
    "groups",
    "portfolio",
    "hardest",
    "confusions",
    "errors",
    "mislabeled",
    "classes",
    "accuracy",
    "ablation",
    "destinations",
    "prior",
    "calibration",
    "coverage",
    "curves",
    "gradients",
    "gradient-classes",
    "saturation",
    "saturated",
    "cloud",
    "embedding",
    "spread",
    "norms",
    "margins",
    "made",
]
POINTS = """async () => {
  const found = {};
  for (const plot of document.querySelectorAll('.plot')) {
    plot.scrollIntoView({ block: 'center', behavior: 'instant' });
    while (!plot.dataset.drawn || !plot._fullLayout?.xaxis) await new Promise((done) => setTimeout(done, 5));
    const { xaxis, yaxis } = plot._fullLayout;
    const inside = (axis, value) => { const place = axis.d2p(value); return place >= -1 && place <= axis._length + 1; };
    found[plot.id] = plot.data.flatMap(({ x = [], y = [] }) =>
      Array.from(x).filter((value, i) => inside(xaxis, value) && inside(yaxis, y[i]))).length;
  }
  return found;
}"""
UNFOLD = "document.querySelectorAll('details').forEach(d => { d.open = true })"
DRAWN = "[...document.querySelectorAll('.plot')].every(plot => plot.dataset.drawn)"
RINGS = (
    "[...document.querySelectorAll('.plot')].filter(p => p.data?.some(t => t.meta === 'ring'))"
    ".map(p => [p.id, p.data.filter(t => t.meta === 'ring').flatMap(t => t.x.map((x, i) => [x, t.y[i]]))])"
)
RESET = (
    "history.replaceState(null, '', location.href.split('#')[0]); dispatchEvent(new PopStateEvent('popstate'));"
    "document.activeElement.blur(); scrollTo(0, 0); delete document.documentElement.dataset.theme;"
    "document.querySelectorAll('details').forEach(d => { d.open = d.id === 'research' })"
)


def launch(playwright: Any) -> Any:
    """The browser of the system, or else the one that playwright brought."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    path = path or playwright.chromium.executable_path
    if not Path(path).exists():
        pytest.skip("needs a browser: apt install chromium, or python -m playwright install chromium")
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = launch(playwright)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def site(browser: Any, write_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The page of two runs, opened once, with what the browser said and asked for."""
    folder = tmp_path_factory.mktemp("site")
    second = {"recipe": "cifar-lt/gcl", "slope": 0.4, "stages": 2}
    runs = [write_run(folder / "ce", names=NAMES), write_run(folder / "gcl", names=NAMES, **second)]
    file = write_report(runs, folder / "report.html")
    page = browser.new_page(viewport=SIZES)
    heard = listen(page)
    page.goto(file.as_uri())
    page.evaluate(UNFOLD)
    page.wait_for_function(DRAWN)
    return SimpleNamespace(page=page, heard=heard, url=file.as_uri(), rows=compare_runs(runs, stages=True).rows)


@pytest.fixture
def page(site: SimpleNamespace) -> Any:
    site.page.emulate_media(media="screen", color_scheme="light")
    site.page.set_viewport_size(SIZES)
    site.page.evaluate(RESET)
    site.page.wait_for_function("document.getElementById('class-panel').hidden")
    return site.page


def listen(page: Any) -> SimpleNamespace:
    """What a page says and asks for from now on: messages and errors, and addresses that are no part of it."""
    heard = SimpleNamespace(words=[], asked=[])
    page.on("console", lambda message: None if "GPU stall" in message.text else heard.words.append(message.text))
    page.on("pageerror", lambda error: heard.words.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(("data:", "blob:")) else heard.asked.append(request.url),
    )
    return heard


def serious(page: Any, **options: Any) -> dict[str, str]:
    """What an audit with axe finds, by the name of the rule."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs pip install 'longtail[dev]'")
    # What is inside of a figure is one image with words to a reader, and thousands of elements to the audit.
    context = {"include": [["body"]], "exclude": [[".plot > *"]]}
    violations = axe.Axe().run(page, context, {"resultTypes": ["violations"], **options}).response["violations"]
    return {
        each["id"]: each["nodes"][0]["html"][:200] for each in violations if each["impact"] in ("serious", "critical")
    }


def choose(page: Any, words: str) -> None:
    page.fill("#class-search", words)
    page.keyboard.press("Enter")
    page.wait_for_function(f"{RINGS}.length >= 3")


def test_every_figure_is_drawn_without_an_error_or_a_request(site: SimpleNamespace) -> None:
    assert site.page.locator(".plot .main-svg").count() >= 20
    assert site.page.evaluate(DRAWN)
    assert site.heard.words == []
    assert site.heard.asked == [site.url]


@pytest.fixture(scope="module")
def full(
    browser: Any,
    write_run: Callable[..., Path],
    write_analysis: Callable[..., None],
    record: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SimpleNamespace]:
    """The page of two runs of which all was measured that can be, in a tab of its own."""
    folder, runs = tmp_path_factory.mktemp("full"), []
    for noise, each in ((0.25, 400), (0.5, 20)):  # 2,400 points are drawn by WebGL, 120 are not
        options = {"options": {"noise": noise}, "stages": 2, "names": NAMES, "second_best": True}
        runs.append(record(write_run(folder / f"gcl-{noise}", recipe="cifar-lt/gcl", **options), epochs=(3, 2)))
        write_analysis(runs[-1], SIX, each=each, cloud=noise)
        write_portfolio(runs[-1], fake_portfolio())
    url = write_report(runs, folder / "report.html").as_uri()
    page = browser.new_page(viewport=SIZES)
    heard = listen(page)
    page.goto(url)
    page.evaluate(UNFOLD)
    yield SimpleNamespace(page=page, heard=heard, url=url)
    page.close()


def test_a_page_with_all_that_can_be_measured_shows_points_in_every_figure_and_asks_for_nothing(full: Any) -> None:
    assert full.page.evaluate("[...document.querySelectorAll('section')].map(s => s.id)") == EVERYTHING
    points = full.page.evaluate(POINTS)
    assert len(points) == full.page.locator(".plot").count() >= 60
    assert [name for name, number in points.items() if not number] == []
    assert full.heard.words == []
    assert full.heard.asked == [full.url]


def test_the_navigation_fits_a_laptop_with_every_section(full: Any) -> None:
    assert full.page.evaluate("(ul => ul.scrollWidth <= ul.clientWidth)(document.querySelector('.bar nav ul'))")


def test_names_at_the_candidates_are_hidden_on_a_phone_but_for_the_two_ends(full: Any) -> None:
    shown = """[...document.querySelectorAll('#portfolio-0 .textpoint, #portfolio-0 .annotation')]
        .filter(e => e.getClientRects().length && getComputedStyle(e).display !== 'none').map(e => e.textContent)"""
    full.page.evaluate("document.getElementById('portfolio-0').scrollIntoView()")
    full.page.wait_for_function("document.querySelector('#portfolio-0 .textpoint')")
    assert full.page.evaluate(shown) == ["kps", "gcl", "weighted", "gcl"]
    full.page.set_viewport_size({"width": 390, "height": 844})
    assert full.page.evaluate(shown) == ["weighted", "gcl"]
    full.page.set_viewport_size(SIZES)


def test_all_that_can_be_measured_fits_paper(full: Any) -> None:
    full.page.emulate_media(media="print")
    wide = (
        "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel)"
    )
    full.page.wait_for_function("document.querySelectorAll('details:not([open])').length === 0")
    assert full.page.evaluate(wide) == []
    full.page.emulate_media(media="screen")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_that_can_be_measured_passes_the_audit_with_a_class_chosen_and_all_opened(full: Any, scheme: str) -> None:
    page = full.page
    page.emulate_media(media="screen", color_scheme=scheme)
    choose(page, "cat")
    page.wait_for_selector("#class-panel .values")
    page.fill("#class-search", "c")
    page.evaluate(UNFOLD)
    # What depends on the colors is all that can differ in the dark.
    violations = serious(page, **({"runOnly": ["color-contrast"]} if scheme == "dark" else {}))
    page.evaluate(RESET)
    assert violations == {}


def test_all_that_can_be_measured_fits_a_phone_with_and_without_a_class(full: Any) -> None:
    full.page.set_viewport_size({"width": 390, "height": 844})
    full.page.wait_for_function("document.querySelector('#histogram-0 .main-svg')?.clientWidth < 390")
    widths = "[document.documentElement.scrollWidth, document.body.scrollWidth]"
    assert full.page.evaluate(widths) == [390, 390]
    choose(full.page, "house mouse")
    full.page.wait_for_selector("#class-panel .values")
    assert full.page.evaluate(widths) == [390, 390]


def test_the_bars_of_the_audit_page_are_as_long_as_their_classes_are_large(browser: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = ImageData(
        "mine",
        ("cat", "lynx", "kiwi"),
        {
            "train": Split.from_arrays(rng.integers(0, 255, (14, 8, 8), np.uint8), [0] * 10 + [1] * 4),
        },
    )
    page = browser.new_page(viewport=SIZES)
    page.goto(write_audit(inspect_data(data), tmp_path / "audit.html", data).as_uri())
    lengths = "[...document.querySelectorAll('.length div')].map(bar => bar.getBoundingClientRect().width)"
    cell = "document.querySelector('td.length').getBoundingClientRect().width"
    full = page.evaluate(cell)
    assert full > 400
    assert page.evaluate(lengths) == pytest.approx([full, 0.4 * full, 0], abs=1)
    page.close()


def test_a_class_is_found_by_keyboard_and_everything_about_it_stands_in_one_place(page: Any, site: Any) -> None:
    for key in ("Tab", "Tab", "Enter"):  # the second link of the page
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.id") == "class-search"
    assert "#" not in page.url
    page.keyboard.type("cat")
    options = page.locator("#class-options li .name").all_inner_texts()
    assert options == ["cat", "wild cat"]  # the exact name comes first
    assert page.get_attribute("#class-search", "aria-expanded") == "true"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    active = page.get_attribute("#class-search", "aria-activedescendant")
    assert page.locator(f"#{active} .name").inner_text() == "wild cat"
    page.keyboard.press("Enter")
    page.wait_for_function(f"{RINGS}.length === 3")
    panel = page.locator("#class-panel")
    assert panel.locator("h2").inner_text() == "wild cat"
    assert all(words in panel.inner_text() for words in ("Many-shot", "120 training", "20 test"))
    for row, table_row in zip(
        [row for row in site.rows if row.stage is None], panel.locator("tbody tr").all(), strict=True
    ):
        assert f"{100 * row.runs[0].test.per_class[1].recall:.1f}" in table_row.inner_text()
    assert panel.locator("img").count() > 4
    assert page.url.endswith("#class=wild%20cat")
    page.wait_for_function("document.getElementById('class-status').textContent.includes('wild cat: Many-shot')")
    page.keyboard.press("Escape")
    assert panel.is_hidden()
    assert "#" not in page.url
    page.wait_for_function(f"{RINGS}.length === 0")


def test_its_point_is_marked_in_every_figure_and_its_values_are_listed(page: Any, site: Any) -> None:
    choose(page, "kiwi")
    recall = site.rows[0].runs[0].test.per_class[5].recall
    marked = dict(page.evaluate(RINGS))
    assert marked["accuracy-0"] == [[5, pytest.approx(recall)]]
    assert marked["histogram-0"] == [[5, 5]]
    page.wait_for_selector("#class-panel .values")
    listed = page.locator("#class-panel .values div").all_inner_texts()
    assert [line.split("\n") for line in listed][:2] == [
        ["The training set", "5 training images"],
        ["Accuracy of each class, ce", f"accuracy {100 * recall:.1f}%"],
    ]


def test_a_class_is_chosen_by_mouse_from_the_list_and_from_a_figure_and_back_leaves_it(page: Any) -> None:
    page.fill("#class-search", "dog")
    page.click("#class-options li")
    assert page.locator("#class-panel h2").inner_text() == "dog"
    page.locator("#class-panel td a").first.click()
    assert page.locator("#class-panel h2").inner_text() != "dog"
    page.go_back()
    page.wait_for_function("document.querySelector('#class-panel h2').textContent === 'dog'")
    page.click("#class-clear")
    assert page.locator("#class-panel").is_hidden()
    point = page.locator("#accuracy-0 .scatterlayer .point").first
    page.locator("#accuracy-0").scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#accuracy-0 .hovertext")
    hover = page.locator("#accuracy-0 .hovertext").text_content()
    assert "lynx" in hover
    assert "95% interval" in hover
    page.mouse.down()
    page.mouse.up()
    page.wait_for_function("document.querySelector('#class-panel h2')?.textContent === 'lynx'")


def test_the_fold_for_researchers_opens_for_links_and_draws_its_figures_then(browser: Any, site: Any) -> None:
    other = browser.new_page(viewport=SIZES)
    other.goto(site.url)
    other.wait_for_function("document.getElementById('group-few').dataset.drawn")
    assert other.evaluate("document.getElementById('accuracy-0').dataset.drawn") is None
    bar = "(ul => ul.scrollWidth <= ul.clientWidth)(document.querySelector('.bar nav ul'))"
    assert other.evaluate(bar)  # the navigation fits
    other.evaluate("location.hash = '#accuracy'")
    other.wait_for_function("document.getElementById('research').open")
    width = "document.querySelector('#accuracy-0 .main-svg')?.clientWidth"
    other.wait_for_function(f"{width} > 300")
    other.evaluate("document.getElementById('research').open = false")
    other.set_viewport_size({"width": 700, "height": 900})
    other.evaluate("document.getElementById('research').open = true")
    other.wait_for_function(f"{width} === document.getElementById('accuracy-0').clientWidth")
    other.close()


def test_a_link_to_a_class_opens_it_and_an_unknown_name_is_said(browser: Any, site: Any) -> None:
    other = browser.new_page(viewport=SIZES)
    other.goto(f"{site.url}#class=house%20mouse")
    assert other.locator("#class-panel h2").inner_text() == "house mouse"
    other.evaluate("location.hash = '#class=unicorn'")
    other.wait_for_function("document.getElementById('class-status').textContent === 'There is no class unicorn.'")
    other.close()


def test_a_table_sorts_by_its_headings_and_stages_stay_with_their_run(page: Any) -> None:
    heading = page.locator("#results th", has_text="Few")
    firsts = "[...document.querySelectorAll('#results tbody tr')].map(r => r.cells[0].textContent.trim())"
    assert page.evaluate(firsts) == ["ce", "gcl", "gcl, after stage 1"]
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert page.evaluate(firsts) == ["gcl", "gcl, after stage 1", "ce"]
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert page.evaluate(firsts) == ["ce", "gcl", "gcl, after stage 1"]
    page.locator("#results th button", has_text="Configuration").click()
    assert page.locator("#results [aria-sort]").count() == 1


def saved(page: Any, section: str, index: int = 0) -> list[list[str]]:
    with page.expect_download() as download:
        page.locator(f"#{section} button.csv").nth(index).click()
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    return list(csv.reader(io.StringIO(text)))


def test_tables_are_saved_as_csv(page: Any, site: Any) -> None:
    heads, *lines = saved(page, "results")
    table = {line[0]: dict(zip(heads, line, strict=True)) for line in lines}
    few = [row.values["few"].mean for row in site.rows if row.stage is None]
    assert [table[name]["Few"] for name in ("ce", "gcl")] == [f"{100 * value:.1f}" for value in few]
    assert float(table["gcl"]["Few low"]) < float(table["gcl"]["Few"]) < float(table["gcl"]["Few high"])
    assert float(table["gcl"]["Few difference"]) == pytest.approx(100 * (few[1] - few[0]), abs=0.06)
    interval = [100 * end for end in site.rows[1].differences["few"].interval]
    assert [float(table["gcl"][f"Few difference {end}"]) for end in ("low", "high")] == pytest.approx(
        interval, abs=0.06
    )
    assert table["ce"]["Few difference low"] == ""
    page.locator("#accuracy summary").click()
    heads, *lines = saved(page, "accuracy")
    assert heads[:5] == ["Class", "Group", "Training images", "Test images", "ce"]
    assert [line[:3] for line in lines][:2] == [["lynx", "many", "300"], ["wild cat", "many", "120"]]
    assert {"ce low", "ce high", "Change"} <= {*heads}
    page.locator("#accuracy thead button.sort").nth(2).click()  # the smallest first, and so in the file
    page.locator("#accuracy thead button.sort").nth(2).click()
    assert [line[2] for line in saved(page, "accuracy")[1:]] == sorted((line[2] for line in lines), key=int)
    page.locator("#accuracy summary").click()


def test_the_tab_key_goes_from_the_skip_link_through_the_page_in_its_order(page: Any) -> None:
    here = "(e => [e.id || e.className || e.tagName, e.getBoundingClientRect().width > 0])(document.activeElement)"
    page.mouse.click(2, 2)
    seen = []
    for _ in range(18):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(here))
    names = [name for name, _ in seen]
    assert names[0] == "skip"
    assert names.index("class-search") < names.index("theme") < names.index("scroll") < names.index("sort")
    assert all(visible for _, visible in seen)


def test_paper_is_light_open_and_without_buttons(page: Any) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_function("document.querySelectorAll('details:not([open])').length === 0")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(253, 252, 250)"
    assert page.locator("button:not(.sort):visible").count() == 0
    page.wait_for_function("document.getElementById('group-many').data[0].marker.color === '#28609e'")
    assert page.evaluate("document.getElementById('histogram-0').layout.width") == 680
    page.emulate_media(media="screen", color_scheme="dark")
    page.wait_for_function("document.querySelectorAll('details[open]').length === 1")  # the one for researchers
    page.wait_for_function("document.getElementById('group-many').data[0].marker.color === '#7aa7f5'")


def test_a_button_changes_the_colors_of_page_and_figures(page: Any) -> None:
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    page.wait_for_function("document.getElementById('group-few').data[0].marker.color === '#ff9161'")
    assert page.locator("#theme").inner_text() == "Light colors"
    page.click("#theme")
    page.wait_for_function("document.getElementById('group-few').data[0].marker.color === '#bf4514'")


def test_many_classes_are_drawn_by_webgl_where_one_looks_and_found_at_once(
    browser: Any, write_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in ((figures, "MANY_POINTS", 100), (figures, "CROWDED", 100), (sections, "TABLE_ROWS", 50)):
        monkeypatch.setattr(module, name, value)
    names = [f"species {index}" for index in range(300)]
    counts = [max(1, 1000 - 3 * index) for index in range(300)]
    options = {"counts": counts, "names": names, "per_class_test": 2}
    runs = [write_run(tmp_path / name, recipe=name, **options) for name in ("ce", "gcl")]
    page = browser.new_page(viewport=SIZES)
    heard = listen(page)
    page.goto(write_report(runs, tmp_path / "report.html").as_uri())
    page.evaluate("document.getElementById('research').open = true")
    live = "['accuracy-0', 'accuracy-1'].map(id => document.getElementById(id)._fullLayout ? 1 : 0)"
    page.locator("#accuracy").scroll_into_view_if_needed()
    page.wait_for_function(f"{live}.join() === '1,1'")
    page.fill("#class-search", "species 277")
    page.keyboard.press("Enter")
    page.wait_for_selector("#class-panel .values")
    assert "2 test images" in page.locator("#class-panel").inner_text()
    page.locator("#hardest").scroll_into_view_if_needed()
    page.wait_for_function(f"{live}.join() === '0,0'")  # far from the screen a figure gives its context back
    page.locator("#accuracy").scroll_into_view_if_needed()
    page.wait_for_function(f"{RINGS}.some(([id]) => id === 'accuracy-1')")
    page.locator("#accuracy summary").click()
    _, *lines = saved(page, "accuracy")
    assert len(lines) == 300  # the table shows 50
    assert heard.words == []
    page.close()
