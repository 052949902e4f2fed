"""The page in a real browser: drop, answer, refusal, and never an old answer beside a new photo."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def test_a_photograph_gets_bars_overlay_and_a_sentence(page, address: str) -> None:
    give(page, example(0))
    page.wait_for_selector("#overlay img")
    told = Predictor.load("calibrated").predict(example(0))
    assert told.calibrated
    assert "a probability of" in page.inner_text("#says")
    assert f"{round(100 * told.calibrated['melanoma'])}%" in page.inner_text("#bars")
    assert "not a medical device" in page.inner_text("body")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390  # nothing to scroll sideways for
    assert all(url.startswith((address, "data:", "blob:")) for url in page.asked), page.asked
    first = page.inner_text("#bars")
    page.fill("#age input, #age textarea", "85")
    page.wait_for_function("old => document.querySelector('#bars').innerText != old", arg=first)
    page.fill("#age input, #age textarea", "old")
    page.wait_for_selector("#says .problem")
    assert "give years" in page.inner_text("#says")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(example(0)[:3000], "broken"), (b"no picture", "no JPEG"), (bytes(400_000), "too large")],
)
def test_a_bad_file_has_a_reason_and_clears_the_answer(page, content: bytes, reason: str) -> None:
    page.click(".example >> nth=1")
    page.wait_for_selector("#overlay img")
    give(page, content)
    page.wait_for_function(
        "reason => document.body.innerText.includes(reason)", arg=f"No answer: the file is {reason}"
        if reason == "too large" else reason,
    )  # fmt: skip
    assert page.locator("#overlay img").count() == 0
    assert "%" not in page.inner_text("#bars") and "probability of" not in page.inner_text("#says")


def test_an_old_answer_never_stands_beside_a_new_photograph(
    page, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = Predictor.predict_many

    def slow_first(self: Predictor, photos: list[bytes], *rest) -> object:
        time.sleep(2 if photos == [example(0)] else 0)
        return predict(self, photos, *rest)

    monkeypatch.setattr(Predictor, "predict_many", slow_first)
    predictor = Predictor.load("calibrated")
    old, new = (predictor.predict(example(number)).calibrated for number in (0, 2))
    assert old and new
    give(page, example(0))
    page.wait_for_selector(".given")
    give(page, example(2))
    shown = []
    expected = f"{100 * new['melanoma']:.0f}%"
    for _ in range(int(PATIENCE / 50)):
        text = page.inner_text("#bars")
        shown.append(text)
        if expected in text:
            break
        time.sleep(0.05)
    time.sleep(1)
    assert expected in page.inner_text("#bars")
    assert all("%" not in text or expected in text for text in shown), shown
