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

from lesions.data.columns import OLDEST, SITES
from lesions.data.tasks import DIAGNOSES
from lesions.errors import InputError
from lesions.inference.predictor import Patient, Prediction, Predictor
from lesions.serving.limits import Limits, RefusedError
from lesions.serving.service import Service, example
from lesions.serving.wording import NOTICE, sentence

HERE = Path(__file__).parent
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
CSS = "footer {display: none !important} #notice {opacity: .8} .problem {color: #c2410c}"
Shown = tuple[dict[str, float] | None, str, str]  # bars, overlay and sentence as HTML


def mount_page(api: FastAPI, service: Service) -> FastAPI:
    """`api` with the page at / ; the service is closed when the application ends."""
    page = build_page(service)
    return gr.mount_gradio_app(
        api, page, path="/", footer_links=[], run_history=False, ssr_mode=False, pwa=False,
        mcp_server=False, enable_monitoring=False, show_error=False, max_file_size=1,
        theme=gr.themes.Base(**FONTS), css=CSS,
    )  # fmt: skip


def build_page(service: Service) -> gr.Blocks:
    """Photograph and metadata on the left, the answer on the right; below each other on a phone."""
    with gr.Blocks(title="Skin lesions", analytics_enabled=False, fill_width=False) as page:
        gr.HTML(f"<h1>Skin lesions</h1><p id=notice>{escape(NOTICE)}</p>")
        with gr.Row():
            with gr.Column(min_width=300):
                photo = _photo_field(service.limits)
                age = gr.Number(label="Age, if known", minimum=0, maximum=OLDEST, elem_id="age")
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
        answer = _answering(service)
        shown, fields = [bars, overlay, says], [photo, age, sex, site]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
        # First of all the old answer goes, in the browser: it must not stand beside a new photo.
        gone = '() => [null, "", ""]'
        photo.clear(None, None, shown, js=gone, **quiet)
        # The last question wins: what came before is not shown any more.
        asked = gr.on(
            [photo.upload, age.change, sex.input, site.input], answer, fields, shown,
            trigger_mode="always_last", concurrency_limit=None, **quiet,
        )  # fmt: skip
        photo.clear(None, None, None, cancels=[asked], **quiet)
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
    async def answer(photo: str | None, age: float | None, sex: str, site: str) -> Shown:
        """The bars, the overlay and the sentence; or nothing but the reason."""
        if not photo:
            return None, "", ""
        try:
            patient = Patient.parse(age, sex, site)
            told, cam = await service.answer(content_of(photo), patient, True)
        except (RefusedError, InputError) as error:
            reason = error.reason if isinstance(error, RefusedError) else str(error)
            return None, "", f"<p class=problem role=alert>No answer: {escape(reason)}.</p>"
        picture = (
            f"<figure><img src='{cam}' alt='Grad-CAM over the photograph' style='width:100%'>"
            "<figcaption>What the answer rests on (Grad-CAM): bright is much.</figcaption></figure>"
        )
        words = f"<p>{escape(sentence(service.predictor, told))}</p>"
        return bars_of(service.predictor, told), picture, words

    return answer


def content_of(photo: str) -> bytes:
    """The bytes of a photograph that the browser sent as a data URL."""
    try:
        return base64.b64decode(photo.partition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError(422, "the file did not arrive whole") from None


def bars_of(predictor: Predictor, told: Prediction) -> dict[str, float]:
    """Names and probabilities for the bars, corrected ones where the run has them."""
    probs = told.calibrated or told.probs
    if len(probs) > 1:
        return {DIAGNOSES.get(name, name): prob for name, prob in probs.items()}
    prob = probs[predictor.task]
    return {predictor.task: prob, f"not {predictor.task}": 1 - prob}
