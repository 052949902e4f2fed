"""The web page at /: a Gradio front that keeps nothing and stores nothing.

Gradio's own picture field writes every upload to a disk and takes paths and addresses from its
client. Here the browser reads the photograph itself and sends it as text with the question, so
that the guard may shut Gradio's routes for uploads, files and addresses.
"""

import base64
import binascii
import os
from html import escape
from pathlib import Path
from typing import Any

# Before Gradio is imported, which looks once: it must call nobody.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr
from fastapi import FastAPI

from lesions.data.columns import SITES
from lesions.data.tasks import DIAGNOSES
from lesions.errors import InputError
from lesions.inference.predictor import Patient, Prediction, Predictor
from lesions.serving.limits import Limits, RefusedError
from lesions.serving.service import Service, example
from lesions.serving.wording import NOTICE, sentence

HERE = Path(__file__).parent
FONT, MONO = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]  # none to be fetched
CSS = "footer {display: none !important} #notice {opacity: .8} .problem {color: #c2410c}"
EMPTY = {"label": "", "confidences": []}
# Both run in the browser: at once the old answer goes, and a late one is shown no more.
CLEARED = "() => [{label: '', confidences: []}, '', '']"
CURRENT = """(result, photo, age, sex, site, ...shown) => {
  const now = [(photo || "").length, (photo || "").slice(-40), age, sex, site];
  return result && JSON.stringify(result.asked) === JSON.stringify(now) ? result.shown : shown;
}"""


def mount_page(api: FastAPI, service: Service) -> FastAPI:
    """`api` with the page at / ."""
    page = build_page(service)
    return gr.mount_gradio_app(
        api, page, path="/", footer_links=[], run_history=False, ssr_mode=False, pwa=False,
        mcp_server=False, enable_monitoring=False, show_error=False, max_file_size=1,
        theme=gr.themes.Base(font=FONT, font_mono=MONO), css=CSS,
    )  # fmt: skip


def build_page(service: Service) -> gr.Blocks:
    """Photograph and metadata on the left, the answer on the right; below each other on a phone."""
    with gr.Blocks(title="Skin lesions", analytics_enabled=False, fill_width=False) as page:
        gr.HTML(f"<h1>Skin lesions</h1><p id=notice>{escape(NOTICE)}</p>")
        with gr.Row():
            with gr.Column(min_width=300):
                photo = _photo_field(service.limits)
                age = gr.Textbox(label="Age in years, if known", max_length=5, elem_id="age")
                sex = gr.Radio(
                    [("unknown", ""), "female", "male"], value="", label="Sex", elem_id="sex"
                )
                site = gr.Dropdown(
                    [("unknown", ""), *((name, name) for name in SITES)],
                    value="", label="Where on the body", filterable=False, elem_id="site",
                )  # fmt: skip
            with gr.Column(min_width=300):
                says = gr.HTML(elem_id="says")
                bars = gr.Label(label="Probability", elem_id="bars", show_heading=False)
                overlay = gr.HTML(elem_id="overlay")
            # What the server answered; the browser shows it only if it is still the question.
            result = gr.JSON(visible="hidden")
        shown, fields = [bars, overlay, says], [photo, age, sex, site]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        changes = [age.change, sex.input, site.input]
        gr.on([photo.clear, *changes], None, None, shown, js=CLEARED, **quiet)
        asked = gr.on(
            [photo.upload, *changes], _answering(service), fields, result,
            trigger_mode="multiple", concurrency_limit=None, **quiet,
        )  # fmt: skip
        asked.then(None, [result, *fields, *shown], shown, js=CURRENT, **quiet)
    page.queue(max_size=service.limits.queue, api_open=False)
    return page


def _photo_field(limits: Limits) -> Any:
    drawn = [
        "data:image/jpeg;base64," + base64.b64encode(example(number)).decode()
        for number in range(3)
    ]
    return gr.HTML(
        "",
        html_template=(HERE / "photo.html").read_text(encoding="utf-8"),
        css_template=(HERE / "photo.css").read_text(encoding="utf-8"),
        js_on_load=(HERE / "photo.js").read_text(encoding="utf-8"),
        examples=drawn,
        problem="",
        most=limits.max_bytes,
        elem_id="photo",
    )


def _answering(service: Service) -> Any:
    async def answer(photo: str | None, age: str, sex: str, site: str) -> dict:
        """The question, and the three fields that show its answer or why there is none."""
        asked = [len(photo or ""), (photo or "")[-40:], age, sex, site]
        if not photo:
            return {"asked": asked, "shown": [EMPTY, "", ""]}
        try:
            patient = Patient.parse(years(age), sex, site)
            told, cam = await service.answer(content_of(photo), patient, True)
        except (RefusedError, InputError) as error:
            words = f"<p class=problem role=alert>No answer: {escape(str(error))}.</p>"
            return {"asked": asked, "shown": [EMPTY, "", words]}
        picture = (
            f"<figure><img src='{cam}' alt='Grad-CAM over the photograph' style='width:100%'>"
            "<figcaption>What the answer rests on (Grad-CAM): bright is much.</figcaption></figure>"
        )
        words = f"<p>{escape(sentence(service.predictor, told))}</p>"
        return {"asked": asked, "shown": [bars_of(service.predictor, told), picture, words]}

    return answer


def years(age: str) -> float | None:
    """The age that somebody typed; None for none."""
    try:
        return float(age) if age.strip() else None
    except ValueError:
        raise InputError(f"age '{age}': give years, such as 55, or leave it empty") from None


def content_of(photo: str) -> bytes:
    """The bytes of a photograph that the browser sent as a data URL."""
    try:
        return base64.b64decode(photo.partition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError(422, "the file did not arrive whole") from None


def bars_of(predictor: Predictor, told: Prediction) -> dict[str, Any]:
    """What Gradio's label shows as bars: corrected probabilities where the run has them."""
    probs = told.calibrated or told.probs
    if len(probs) == 1:
        probs = probs | {f"not {predictor.task}": 1 - probs[predictor.task]}
    ranked = sorted(probs.items(), key=lambda item: -item[1])
    bars = [{"label": DIAGNOSES.get(name, name), "confidence": prob} for name, prob in ranked]
    return {"label": bars[0]["label"], "confidences": bars}
