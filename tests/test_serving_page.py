"""The page in a real browser: verdict, refusal, and never an old answer beside a new photo."""

import shutil
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", "6.16", reason="the serve extra is not installed")
sync_api = pytest.importorskip("playwright.sync_api")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
if not BROWSER:
    pytest.skip("no chromium on this machine", allow_module_level=True)

from serving import served  # noqa: E402

from lesions.inference.predictor import Predictor  # noqa: E402
from lesions.serving.service import Limits, example  # noqa: E402

PATIENCE = 60_000  # milliseconds: the machine may be busy


@pytest.fixture(scope="module")
def address(calibrated: Path) -> Iterator[str]:
    with served(Predictor.load("calibrated"), Limits(max_bytes=300_000)) as url:
        yield f"{url}/"


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, address: str) -> Iterator:
    page = chromium.new_page(viewport={"width": 390, "height": 800})  # a phone's
    page.set_default_timeout(PATIENCE)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("#photo input[type=file]", state="attached")
    yield page
    page.close()


def give(page, content: bytes, name: str = "lesion.jpg") -> None:
    file = {"name": name, "mimeType": "image/jpeg", "buffer": content}
    page.set_input_files("#photo input[type=file]", file)


def test_a_photograph_gets_a_verdict_and_an_overlay_to_switch(page, address):
    give(page, example(0))
    page.wait_for_selector("#overlay img.cam")
    told = Predictor.load("calibrated").predict(example(0))
    assert told.calibrated
    share = 100 * told.calibrated["melanoma"]
    side = "At or above" if told.positive else "Below"
    assert page.inner_text(".verdict b").startswith(f"{side} the threshold: {share:.0f}")
    assert "Sensitivity of this threshold 0." in page.inner_text(".verdict")
    assert page.locator("#says .bar i").count() == 1  # the threshold
    assert page.locator("#says .warning").count() == bool(told.unusual)
    assert page.get_attribute("#says", "aria-live") == "polite"
    assert "not a medical device" in page.inner_text("body")
    page.wait_for_function("document.querySelector('#says').getBoundingClientRect().top < 400")
    page.uncheck("#overlay input")
    assert not page.is_visible("#overlay .cam") and page.is_visible("#overlay img >> nth=0")
    assert all(url.startswith((address, "data:", "blob:")) for url in page.asked), page.asked
    first = page.inner_text("#says")
    page.fill("#age input, #age textarea", "85")
    page.wait_for_function("old => document.querySelector('#says').innerText != old", arg=first)
    page.fill("#age input, #age textarea", "old")
    page.wait_for_selector("#says .problem")
    assert "give years" in page.inner_text("#says") and page.is_visible(".given")


# Of the text of a box on its own background, by WCAG 2.
CONTRAST = """place => {
    const light = (colour) => {
        const parts = colour.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255);
        const [r, g, b] = parts.map((p) => p <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const style = getComputedStyle(document.querySelector(place));
    const [a, b] = [light(style.color), light(style.backgroundColor)];
    return Math.max(a / b, b / a);
}"""


def test_it_fits_and_can_be_read_on_every_screen_light_and_dark(page):
    give(page, noise())
    page.wait_for_selector("#overlay img.cam")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (390, 768, 1440):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            for place in (".verdict", ".warning"):
                assert page.evaluate(CONTRAST, f"#says {place}") > 4.5
    page.wait_for_function(  # both in one look: Gradio still moves them after a new width
        """() => {
            const top = (place) => document.querySelector(place).getBoundingClientRect().top;
            return Math.abs(top("#photo") - top("#says")) < 20;
        }"""
    )  # beside each other where there is room


def noise() -> bytes:
    file, pixels = BytesIO(), np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_the_first_tab_reaches_the_photograph_and_space_opens_it(page):
    opened = []
    page.on("filechooser", lambda chooser: opened.append(chooser))
    for _ in range(5):  # on a busy machine Gradio still draws, and drops the focus
        page.keyboard.press("Tab")
        page.wait_for_function("document.activeElement.matches('#photo input[type=file]')")
        page.keyboard.press("Space")
        page.wait_for_timeout(2000)
        if opened:
            break
        page.reload()
        page.wait_for_selector("#photo input[type=file]", state="attached")
    assert opened


def test_the_manual_knows_its_port_and_its_form_is_answered(page, address):
    links = page.locator("#model a").evaluate_all("all => all.map((link) => link.href)")
    assert f"{address}api/info" in links
    assert f"{address}docs" in links
    page.click("#model a[href='/docs']")
    assert f"{address}api/predict" in page.inner_text("pre >> nth=0")
    file = {"name": "a", "mimeType": "", "buffer": example(1)}
    page.set_input_files("#try input[type=file]", file)
    page.fill("#try [name=age]", "55")
    page.click("#try button")
    page.wait_for_function("document.querySelector('#reply').innerText.startsWith('200 ')")
    assert '"verdict"' in page.inner_text("#reply")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(example(0)[:3000], "broken"), (b"no picture", "no JPEG"), (bytes(400_000), "too large")],
)
def test_a_bad_file_has_a_reason_and_clears_the_answer(page, content, reason):
    page.click(".example >> nth=1")
    page.wait_for_selector("#overlay img")
    give(page, content)
    page.wait_for_function(
        "reason => document.body.innerText.includes(reason)", arg=f"No answer: the file is {reason}"
        if reason == "too large" else reason,
    )  # fmt: skip
    assert page.locator("#overlay img").count() == page.locator(".given").count() == 0
    assert "%" not in page.inner_text("#says")


def test_an_old_answer_never_stands_beside_a_new_photograph(page, monkeypatch):
    predict = Predictor.predict_many

    def slow_first(self: Predictor, photos: list[bytes], *rest) -> object:
        time.sleep(2 if photos == [example(0)] else 0)
        return predict(self, photos, *rest)

    monkeypatch.setattr(Predictor, "predict_many", slow_first)
    predictor = Predictor.load("calibrated")
    old, new = (predictor.predict(example(number)).calibrated for number in (0, 2))
    assert old and new
    give(page, example(0))
    page.wait_for_selector("#says .waiting")
    give(page, example(2))
    shown = []
    expected = f"{100 * new['melanoma']:.0f}\u00a0%"
    for _ in range(int(PATIENCE / 50)):
        text = page.inner_text("#says")
        shown.append(text)
        if expected in text:
            break
        time.sleep(0.05)
    time.sleep(1)
    assert expected in page.inner_text("#says")
    assert all("%" not in text or expected in text for text in shown), shown
