"""/docs: the OpenAPI document as a plain page.

FastAPI's own documentation pages load their code from another server, which this one never does.
"""

from html import escape
from typing import Any

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}"
    "code,pre{background:#8882;padding:.1em .3em;border-radius:4px;overflow-x:auto}"
    "pre{padding:.8em}td{vertical-align:top;padding:.2em .8em .2em 0}"
    ":root{color-scheme:light dark}"
)
EXAMPLE = """curl --data-binary @photo.jpg 'http://127.0.0.1:7860/api/predict?age=55&amp;sex=female'
curl -F photo=@photo.jpg -F site=torso -F explain=true http://127.0.0.1:7860/api/predict"""


def manual(document: dict[str, Any]) -> str:
    """The page, as HTML, of an OpenAPI `document`."""
    info = document["info"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>",
        "<meta name=viewport content='width=device-width'>",
        f"<style>{STYLE}</style><h1>{escape(info['title'])}</h1>",
        f"<p>{escape(info['description'])}</p><pre>{EXAMPLE}</pre>",
        "<p>The whole description for programs: <a href='/openapi.json'>openapi.json</a></p>",
    ]
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(route.get('description', ''))}</p>")
            parts.append(_rows("Fields", map(_parameter, route.get("parameters", []))))
            if body := route.get("requestBody"):
                kinds = ", ".join(f"<code>{escape(kind)}</code>" for kind in body["content"])
                parts.append(f"<p>Body: {escape(body['description'])} {kinds}</p>")
            answers = route["responses"].items()
            parts.append(_rows("Answers", [(code, told["description"]) for code, told in answers]))
    for name, schema in document["components"]["schemas"].items():
        if properties := schema.get("properties"):
            rows = [(key, value.get("description", "")) for key, value in properties.items()]
            parts.append(f"<h3 id='{escape(name)}'>{escape(name)}</h3>")
            parts.append(f"<p>{escape(schema.get('description', ''))}</p>" + _rows("", rows))
    return "\n".join(parts)


def _parameter(given: dict[str, Any]) -> tuple[str, str]:
    return given["name"], given.get("description", "")


def _rows(title: str, rows: Any) -> str:
    cells = [
        f"<tr><td><code>{escape(str(key))}</code><td>{escape(str(value))}" for key, value in rows
    ]
    return f"<h4>{title}</h4><table>{''.join(cells)}</table>" if cells else ""
