"""The report in a real headless Chromium, opened as a file; skipped where none is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from report_world import shared_world

pytest.importorskip("selenium")

from browser import available, browser, complaints, requested, set_screen  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webdriver import WebDriver  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

from spectra_exp.presentation.html import TEMPLATES, Block, Row, Table, html_page  # noqa: E402

pytestmark = pytest.mark.skipif(not available(), reason="no Chromium with its driver")

VALUES = ["10.0 ± 0.2 **", "9.5 ± 1.0", "", "−0.3 ± 0.1 *", "1.2M", "3.000e-05", "n<3", "-2", "[0.5, 0.7]", "100"]
BY_VALUE = ["-2", "−0.3 ± 0.1 *", "3.000e-05", "[0.5, 0.7]", "9.5 ± 1.0", "10.0 ± 0.2 **", "100", "1.2M", "n<3", ""]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_world(tmp_path_factory) / "report"


@pytest.fixture
def page(driver: WebDriver, report: Path) -> WebDriver:
    """The first page, freshly loaded on a wide light screen without a stored theme."""
    set_screen(driver, 1280, 900)
    driver.get((report / "index.html").as_uri())
    driver.execute_script("localStorage.clear(); delete document.documentElement.dataset.theme")
    return driver


def column(driver: WebDriver, place: int) -> list[str]:
    """The texts of a column of the page's first table, in the order shown, hidden rows left out."""
    script = (
        "return [...document.querySelector('tbody').rows].filter(r => !r.hidden)"
        ".map(r => r.cells[arguments[0]].textContent)"
    )
    return driver.execute_script(script, place)


def small_page(folder: Path, old: str = "", new: str = "") -> str:
    """The address of a page with one table of `VALUES`, its script changed if asked."""
    rows = [Row([f"row {i}", value]) for i, value in enumerate(VALUES)]
    block = Block("one", "One", None, Table("Values", ["row", "value"], rows))
    text = html_page(TEMPLATES / "page.html", "Small", [block])
    assert old in text
    path = folder / "small.html"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path.as_uri()


def test_it_loads_without_complaints_and_asks_for_nothing_else(page: WebDriver, report: Path) -> None:
    page.get_log("performance"), page.get_log("browser")
    for path in (report / "index.html", sorted((report / "runs").glob("switch*"))[0]):
        page.get(path.as_uri())
        assert page.title
        assert complaints(page) == []
        asked = [url for url in requested(page) if not url.startswith("data:")]
        assert asked == [path.as_uri()]


def test_a_request_and_an_error_would_be_seen(driver: WebDriver, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text("<img src='http://127.0.0.1:9/a.png'><script>nothing()</script>")
    driver.get_log("performance")
    driver.get(path.as_uri())
    assert any("nothing is not defined" in line for line in complaints(driver))
    assert "http://127.0.0.1:9/a.png" in requested(driver)


def test_columns_sort_by_value_both_ways_with_empty_cells_last(driver: WebDriver, tmp_path: Path) -> None:
    driver.get(small_page(tmp_path))
    head = driver.find_elements(By.CSS_SELECTOR, "thead button")[1]
    head.click()
    assert column(driver, 1) == BY_VALUE
    head.send_keys(Keys.ENTER)
    assert column(driver, 1) == [*BY_VALUE[7::-1], "n<3", ""]
    assert driver.find_element(By.CSS_SELECTOR, "th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_a_sort_by_letters_is_found(driver: WebDriver, tmp_path: Path) -> None:
    driver.get(small_page(tmp_path, "if (!found) return null;", "return null;"))
    driver.find_elements(By.CSS_SELECTOR, "thead button")[1].click()
    assert column(driver, 1) != BY_VALUE


def test_the_runs_sort_by_loss(page: WebDriver) -> None:
    page.execute_script("document.querySelector('#runs thead th:nth-child(5) button').click()")
    script = "return [...document.querySelectorAll('#runs tbody tr')].map(r => Number(r.cells[4].textContent))"
    losses = page.execute_script(script)
    assert len(losses) > 40 and losses == sorted(losses)


def test_the_filter_keeps_rows_with_all_words(driver: WebDriver, tmp_path: Path) -> None:
    driver.get(small_page(tmp_path))
    field = driver.find_element(By.CSS_SELECTOR, ".filter input")
    field.send_keys("ROW ±")
    assert column(driver, 0) == ["row 0", "row 1", "row 3"]
    assert driver.find_element(By.TAG_NAME, "output").text == "3 of 10 rows"
    field.send_keys(Keys.CONTROL, "a", Keys.DELETE)
    assert len(column(driver, 0)) == len(VALUES)
    assert driver.find_element(By.TAG_NAME, "output").text == "10 rows"


def background(driver: WebDriver) -> str:
    return driver.execute_script("return getComputedStyle(document.body).backgroundColor")


def test_it_follows_the_system_and_the_button_turns_it_over_and_stays(page: WebDriver) -> None:
    light = background(page)
    set_screen(page, 1280, 900, "dark")
    dark = background(page)
    assert light == "rgb(255, 255, 255)" and dark == "rgb(20, 23, 28)"
    page.find_element(By.ID, "theme").click()
    assert background(page) == light
    page.refresh()
    assert background(page) == light
    page.find_element(By.ID, "theme").click()
    assert background(page) == dark
    set_screen(page, 1280, 900, "light")
    assert background(page) == dark


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_no_page_scrolls_sideways(page: WebDriver, report: Path, width: int) -> None:
    set_screen(page, width, 800)
    for path in (report / "index.html", *sorted((report / "runs").glob("*s0*"))[:3]):
        page.get(path.as_uri())
        page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
        inside = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        content, screen = page.execute_script(inside)
        assert content <= screen, path.name


def test_a_chosen_metric_is_the_one_shown(page: WebDriver) -> None:
    box = page.find_element(By.CSS_SELECTOR, "#ablations .choice")
    shown = [caption for caption in box.find_elements(By.TAG_NAME, "figcaption") if caption.is_displayed()]
    assert len(shown) == 1 and "val_loss" in shown[0].text
    Select(box.find_element(By.TAG_NAME, "select")).select_by_visible_text("expert_overlap")
    shown = [caption for caption in box.find_elements(By.TAG_NAME, "figcaption") if caption.is_displayed()]
    assert len(shown) == 1 and "expert_overlap" in shown[0].text


def test_the_words_of_a_point_show_on_hover_and_on_focus(page: WebDriver) -> None:
    script = "document.querySelector('#front .chosen a').focus(); return document.querySelector('#tip').textContent"
    words = page.execute_script(script)
    assert "val_loss" in words and "load_cv" in words and "n 3" in words and "causal" in words
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
    assert not page.find_element(By.ID, "tip").is_displayed()


def test_a_run_opens_from_its_link_and_leads_back(page: WebDriver) -> None:
    link = page.find_element(By.CSS_SELECTOR, "#runs tbody a")
    name = link.text
    page.execute_script("arguments[0].click()", link)
    assert page.find_element(By.TAG_NAME, "h1").text == name
    page.find_element(By.CLASS_NAME, "back").click()
    assert page.find_element(By.CSS_SELECTOR, "tr.marked th").text == name


def test_a_link_opens_the_folded_table_it_points_into(page: WebDriver) -> None:
    page.execute_script("location.hash = '#table-table12_stability'")
    page.execute_async_script("setTimeout(arguments[0], 50)")
    assert page.execute_script("return document.getElementById('table-table12_stability').open")


def test_hostile_texts_run_nothing(page: WebDriver, report: Path) -> None:
    page.get(sorted((report / "runs").glob("dense-*"))[0].as_uri())
    assert "<script>alert(1)</script>" in page.find_element(By.CSS_SELECTOR, "#log pre").text
    assert len(page.find_elements(By.TAG_NAME, "script")) == 1


def test_all_commands_can_be_copied(page: WebDriver) -> None:
    button = page.find_element(By.CSS_SELECTOR, "#missing .copy-all")
    commands = button.get_attribute("data-copy").splitlines()
    assert "make sweep-e" in commands and len(commands) == len(set(commands))
    page.execute_script("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.execute_script("arguments[0].click()", page.find_element(By.CSS_SELECTOR, "#missing .copy"))
    page.execute_async_script("setTimeout(arguments[0], 50)")
    assert page.execute_script("return window.copied") in commands
