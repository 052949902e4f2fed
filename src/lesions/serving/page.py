"""The web page at /: a Gradio front whose browser asks /api/predict, as any client does.

Gradio's own picture field and events write every upload to a disk and take paths and addresses
from the client. Here the browser reads the photograph and sends it to the REST route, so that the
guard may close all of Gradio's routes that take anything.
"""

import os
from html import escape
from typing import Any

# Before Gradio is imported, which reads it once: it must call nobody.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr
from fastapi import FastAPI

from lesions.data.columns import SITES
from lesions.data.tasks import DIAGNOSES
from lesions.inference.wording import NOTICE
from lesions.serving.api import describe, filled
from lesions.serving.service import Service, data_url, example, static

FONT, MONO = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]  # none to be fetched
# A screen reader says what is written into a region that was there before.
LIVE = "() => document.querySelector('#says').setAttribute('aria-live', 'polite')"
FIT = {"squash": "fill", "pad": "contain", "crop": "cover"}  # the photograph under its overlay


def mount_page(api: FastAPI, service: Service) -> FastAPI:
    """`api` with the page at / ."""
    return gr.mount_gradio_app(
        api, build_page(service), path="/", footer_links=[], run_history=False, ssr_mode=False,
        pwa=False, mcp_server=False, enable_monitoring=False, show_error=False, max_file_size=1,
        theme=gr.themes.Base(font=FONT, font_mono=MONO), css=static("page.css"), js=LIVE,
    )  # fmt: skip


def build_page(service: Service) -> gr.Blocks:
    """Photograph and metadata on the left, the answer on the right; below each other on a phone."""
    with gr.Blocks(title="Skin lesions", analytics_enabled=False, fill_width=False) as page:
        gr.HTML(f"<h1>Skin lesions</h1><p id=notice>{escape(NOTICE)}</p>")
        with gr.Row():
            with gr.Column(min_width=300):
                photo = gr.HTML(
                    "", html_template=static("photo.html"), css_template=static("photo.css"),
                    js_on_load=static("photo.js"), problem="", most=service.limits.max_bytes,
                    examples=[data_url(example(number), "jpeg") for number in range(3)],
                    names=DIAGNOSES, fit=FIT[service.predictor.runs[0].preprocess.fit],
                    elem_id="photo",
                )  # fmt: skip
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
                overlay = gr.HTML(elem_id="overlay")
        gr.HTML(filled("model.html", **describe(service)))
        shown, fields = [says, overlay], [photo, age, sex, site]
        quiet: dict[str, Any] = {
            "api_visibility": "private", "show_progress": "hidden", "trigger_mode": "multiple",
        }  # fmt: skip
        # In the browser: the old answer is cleared at once, and a late one is not shown.
        gr.on([photo.clear], None, None, shown, js="() => window.lesions.clear()", **quiet)
        changes = [photo.upload, age.change, sex.input, site.input]
        wait = "(photo) => window.lesions.wait(photo)"
        cleared = gr.on(changes, None, photo, shown, js=wait, **quiet)
        cleared.then(None, fields, shown, js="(...all) => window.lesions.ask(...all)", **quiet)
    return page
