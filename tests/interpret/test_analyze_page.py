"""The page of an analysis in a real headless Chromium; skipped where none is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from made_subjects import by_domain, held_out, made_documents, made_subject, two_of_four

pytest.importorskip("selenium")

from browser import available, browser, complaints, requested, set_screen  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.remote.webdriver import WebDriver  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

from spectra_exp.data.documents import Document  # noqa: E402
from spectra_exp.interpret import page as page_module  # noqa: E402
from spectra_exp.interpret.page import write_page  # noqa: E402
from spectra_exp.interpret.registry import Request, parts  # noqa: E402
from spectra_exp.interpret.results import AnalysisFolder, Result  # noqa: E402

pytestmark = pytest.mark.skipif(not available(), reason="no Chromium with its driver")

EVIL = "</script><script>window.hacked = 1</script>"
SHOWN = ("load", "contexts", "cases", "explore")


def made_page(folder: Path) -> Path:
    """The page of two made models, with a hostile text and a hostile name, and a part without anything."""
    documents = [*made_documents(6), Document(f"zebra {EVIL} hammer", "animals", "evil")]
    text = held_out(documents)
    request = Request(
        made_subject(two_of_four, by_domain, top_k=2, text=text, num_experts=5, name="<b>first"),
        made_subject(by_domain, text=text, name="second"),
        [Document("zebra and hammer.\ngreen saw", "x", "mine"), Document(f"saw {EVIL}", "x", EVIL)],
    )
    made = AnalysisFolder(folder, {"subject": request.subject.head(), "against": request.against.head(), "seed": 0})
    for name in SHOWN:
        made.write(name, parts()[name].title, parts()[name].run(request))
    made.write("affinity", "Domains", Result(empty="no labels here"))
    return write_page(folder)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made_page(tmp_path_factory.mktemp("analysis")).as_uri()


@pytest.fixture
def page(driver: WebDriver, address: str) -> WebDriver:
    set_screen(driver, 1280, 900)
    driver.get(address)
    return driver


def side(page: WebDriver, place: int = 0):
    return page.find_elements(By.CSS_SELECTOR, ".explorer")[place]


def choose(box, place: int, index: int) -> None:
    Select(box.find_elements(By.TAG_NAME, "select")[place]).select_by_index(index)


def coloured(page: WebDriver, box) -> set[str]:
    tokens = "[...arguments[0].querySelectorAll('.token')].filter(t => t.style.background)"
    script = f"return {tokens}.map(t => t.textContent)"
    return {piece.strip() for piece in page.execute_script(script, box)}


def test_it_asks_for_nothing_and_complains_of_nothing(driver: WebDriver, address: str) -> None:
    driver.get_log("performance"), driver.get_log("browser")
    driver.get(address)
    assert complaints(driver) == []
    assert [url for url in requested(driver) if not url.startswith("data:")] == [address]


def test_hostile_texts_are_shown_and_run_nothing(page: WebDriver) -> None:
    assert page.execute_script("return window.hacked") is None
    assert page.find_element(By.TAG_NAME, "h1").text == "<b>first against second"
    Select(page.find_element(By.CSS_SELECTOR, "#cases select")).select_by_index(1)
    assert EVIL in page.find_element(By.CSS_SELECTOR, "#cases .tokens").text


def test_data_that_ends_the_script_early_would_be_seen(driver: WebDriver, tmp_path, monkeypatch) -> None:
    """Planted fault: without the escape the hostile text runs."""
    path = made_page(tmp_path)
    broken = path.read_text(encoding="utf-8").replace("\\u003c", "<")
    path.write_text(broken, encoding="utf-8")
    driver.get(path.as_uri())
    assert driver.execute_script("return window.hacked") == 1


def test_a_chosen_expert_has_its_samples_and_its_tokens_in_the_text(page: WebDriver) -> None:
    box = side(page)
    choose(box, 0, 1)
    choose(box, 1, 1)
    words = coloured(page, box)
    assert {"green", "purple"} <= words and not {"zebra", "hammer"} & words
    samples = [item.text for item in box.find_elements(By.CSS_SELECTOR, ".samples li")]
    assert samples and all("colours" in text for text in samples)
    assert "Keywords" in box.find_element(By.TAG_NAME, "p").text
    choose(box, 1, 4)
    assert "No token of the text goes to this expert" in box.text and coloured(page, box) == set()


def test_the_two_models_are_chosen_apart(page: WebDriver) -> None:
    choose(side(page, 1), 1, 3)
    assert {"hammer", "wrench"} <= coloured(page, side(page, 1))
    assert "zebra" in coloured(page, side(page, 0))


def test_a_searched_token_is_marked_and_its_ways_are_listed(page: WebDriver) -> None:
    page.find_element(By.ID, "token-search").send_keys("zebra")
    for place in (0, 1):
        box = side(page, place)
        hits = {hit.text.strip() for hit in box.find_elements(By.CSS_SELECTOR, ".token.hit")}
        rows = box.find_elements(By.CSS_SELECTOR, ".ways tbody tr")
        assert hits == {"zebra"} and rows and all("zebra" in row.text for row in rows)
    # Layer 0 of the first model: half of its assignments to the domain's expert, half to the next one.
    assert "0: 50 %, 1: 50 %" in side(page).find_element(By.CSS_SELECTOR, ".ways tbody").text
    page.find_element(By.ID, "token-search").send_keys("xyz")
    assert "No token id" in side(page).text


def test_a_text_is_followed_in_both_models_with_weights_under_the_pointer(page: WebDriver) -> None:
    texts = page.find_elements(By.CSS_SELECTOR, "#cases .tokens")
    assert [text.text.replace("⏎\n", "\n") for text in texts] == ["zebra and hammer.\ngreen saw"] * 2
    token = texts[0].find_element(By.CSS_SELECTOR, ".token")
    page.execute_script("arguments[0].dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))", token)
    tip = page.execute_script("return document.getElementById('tip').textContent")
    assert "layer 0: expert 0: 0.667, expert 1: 0.333" in tip and "layer 1: expert 0: 1" in tip
    table = page.find_element(By.CSS_SELECTOR, "#cases details table")
    assert "experts, <b>first" in table.get_attribute("textContent")
    assert "0: 0.67, 1: 0.33" in table.get_attribute("textContent")


def test_an_empty_part_says_why(page: WebDriver) -> None:
    assert "Nothing to show: no labels here." in page.find_element(By.ID, "affinity").text


@pytest.mark.parametrize("width", [360, 1920])
def test_it_does_not_scroll_sideways(page: WebDriver, width: int) -> None:
    set_screen(page, width, 800)
    page.find_element(By.ID, "token-search").send_keys("a")
    page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    inside = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    content, screen = page.execute_script(inside)
    assert content <= screen


def test_pictures_are_in_the_page(page: WebDriver) -> None:
    script = "return [...document.images].map(i => { i.loading = 'eager'; return i.src.slice(0, 21); })"
    sources = page.execute_script(script)
    assert len(sources) == 3 and set(sources) == {"data:image/png;base64"}


def test_a_page_needs_an_index(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no analysis"):
        page_module.write_page(tmp_path)
