"""Pages from templates: the Jinja2 environment of reports (HTML) and of docs pages (Markdown)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lesions.paths import CODE
from lesions.reporting.style import css_variables

FOLDERS = (Path(__file__).parent / "templates", CODE / "docs" / "templates")


def render(template: str, **values: Any) -> str:
    """The text of a template in reporting/templates or docs/templates, filled in with `values`.

    Values are escaped in <name>.html.j2 and stand as they are in every other file. A value that
    the template names and nobody gives is an error.
    """
    return environment().get_template(template).render(values)


@cache
def environment() -> Environment:
    """The environment of all pages, with the filters that write numbers."""
    made = Environment(
        loader=FileSystemLoader(FOLDERS),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"interval": interval, "percent": percent, "count": count}
    return made


def interval(
    found: Any, low: float | None = None, high: float | None = None, digits: int = 3,
    sign: bool = False,
) -> str:  # fmt: skip
    """The filter "interval": an Interval, its JSON, or a number with its limits, as text."""
    from lesions.evaluation.intervals import format_interval

    if isinstance(found, Mapping):
        found, low, high = found.get("value"), found.get("low"), found.get("high")
    elif hasattr(found, "low"):
        found, low, high = found.value, found.low, found.high
    return format_interval(found, low, high, digits, sign)


def percent(share: float | None, digits: int = 1) -> str:
    """The filter "percent": 0.123 as "12.3 %", "n/a" where there is no share."""
    return "n/a" if share is None or share != share else f"{100 * share:.{digits}f} %"


def count(number: float) -> str:
    """The filter "count": 12345 as "12,345"."""
    return f"{number:,.0f}"


NOTE = (
    "For research and education only. Not a medical device: it must not be used to diagnose, "
    "to treat, or to decide whether a lesion is examined."
)


@dataclass(frozen=True)
class Section:
    """A part of the page: an anchor, its title, a sentence or two, and cards as HTML."""

    anchor: str
    title: str
    intro: str
    cards: Sequence[str]


@dataclass(frozen=True)
class KeyFigure:
    """A number of the strip at the top: what it is, the number, and how sure or of what."""

    label: str
    value: str
    note: str = ""


def card(title: str, body: str, caption: str = "", width: str = "") -> str:
    """A figure with its title above and what to see in it below; `body` is HTML.

    `width` is one column of the page, "double", or "wide" for all of them.
    """
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="card {width}"><h3>{escape(title)}</h3>{body}{below}</figure>'


def missing(title: str, reason: str) -> str:
    """The card of a panel that could not be drawn, and what would make it appear."""
    return card(title, f'<p class="missing">{escape(reason)}</p>')


def tiles(entries: Sequence[tuple[str, str, str, str, str]]) -> str:
    """Photographs with three lines below: (data URI, alternative text, and the lines)."""
    items = (
        f'<li><img src="{uri}" alt="{escape(alt, quote=True)}" loading="lazy">'
        f"<b>{escape(first)}</b><span>{escape(second)}</span><span>{escape(third)}</span></li>"
        for uri, alt, first, second, third in entries
    )
    return f'<ul class="tiles">{"".join(items)}</ul>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; every column but the first is set as numbers."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div>"
    )


def lead(text: str, pictures: str = "") -> str:
    """What the numbers mean in words, beside pictures of them; both are HTML."""
    note = f'<p class="note">{escape(NOTE)}</p>'
    return f'<div class="lead"><div>{text}{note}</div><div class="hundreds">{pictures}</div></div>'


def hundred(marked: int, role: str, caption: str) -> str:
    """A hundred dots of which `marked` are filled in the palette's colour `role`."""
    dots = "".join(
        f'<circle cx="{10 * (i % 10) + 5}" cy="{10 * (i // 10) + 5}" r="3.7" '
        f'class="{"on" if i < marked else "off"}"/>'
        for i in range(100)
    )
    label = escape(caption, quote=True)
    return (
        f'<figure style="--on:var(--{role})"><svg viewBox="0 0 100 100" role="img" '
        f'aria-label="{label}">{dots}</svg><figcaption>{escape(caption)}</figcaption></figure>'
    )


def folded(title: str, text: str) -> str:
    """Plain text under a title that opens on a click."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def build_page(
    title: str,
    subtitle: str,
    figures: Sequence[KeyFigure],
    lead: str,
    sections: Sequence[Section],
    footer: str,
) -> str:
    """The whole page; `lead` and `footer` are HTML, everything else is escaped here."""
    strip = "".join(
        f"<div><dt>{escape(figure.label)}</dt><dd>{escape(figure.value)}</dd>"
        f"<dd>{escape(figure.note)}</dd></div>"
        for figure in figures
    )
    links = "".join(f'<a href="#{part.anchor}">{escape(part.title)}</a>' for part in sections)
    body = "".join(
        f'<section id="{part.anchor}"><h2>{escape(part.title)}</h2><p class="intro">'
        f'{escape(part.intro)}</p><div class="cards">{"".join(part.cards)}</div></section>'
        for part in sections
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)} · report</title>
<style>{css_variables()}{CSS}</style>
</head>
<body>
<header>
<p class="subtitle">{escape(subtitle)}</p>
<h1>{escape(title)}</h1>
<dl class="strip">{strip}</dl>
{lead}
</header>
<nav aria-label="Sections">{links}</nav>
<main>{body}</main>
<footer>{footer}<p class="note">{escape(NOTE)}</p></footer>
</body>
</html>
"""


CSS = """
:root{--back:#f5f6f4;--card:#fffffe;--line:#e1e5e8;--wash:#eef3f1}
@media (prefers-color-scheme:dark){
 :root{--back:#10151a;--card:#161c23;--line:#28313b;--wash:#1b2529}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--back);color:var(--ink);
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
 font-variant-numeric:tabular-nums lining-nums;text-rendering:optimizeLegibility}
header,main,footer{max-width:84rem;margin:0 auto;padding:0 clamp(.9rem,3vw,2.5rem)}
header{padding-top:clamp(1.6rem,4vw,3.2rem)}
h1,h2{font-family:Charter,"Bitstream Charter","Iowan Old Style",Cambria,Georgia,serif;
 font-weight:600;letter-spacing:-.012em;line-height:1.15;text-wrap:balance}
h1{font-size:clamp(1.9rem,4.4vw,3rem);margin:.1em 0 .7em;overflow-wrap:anywhere}
h2{font-size:clamp(1.4rem,2.4vw,1.8rem);margin:0 0 .25em}
h3{font-size:.98rem;font-weight:650;margin:0 0 .55rem}
.subtitle{color:var(--muted);margin:0}
.strip{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.6rem,1fr));gap:1px;margin:0;
 background:var(--card);border:1px solid var(--line);border-radius:12px;overflow:hidden}
.strip div{box-shadow:0 0 0 1px var(--line);
 padding:.8rem 1rem;display:grid;grid-row:span 3;row-gap:.15rem;
 grid-template-rows:subgrid}
.strip dt,.strip dd{margin:0;font-size:.8rem;line-height:1.35;color:var(--muted)}
.strip dt{align-self:end}
.strip dt+dd{font-size:1.65rem;line-height:1.15;font-weight:600;letter-spacing:-.02em;
 color:var(--ink)}
.strip div:first-child dt+dd{color:var(--model)}
.lead{display:flex;flex-wrap:wrap;gap:1rem 3.5rem;align-items:flex-start;margin:1.7rem 0 0}
.lead>div:first-child{flex:1 1 24rem;max-width:46rem}
.lead p{font-size:clamp(1.08rem,1.7vw,1.25rem);line-height:1.5;margin:0 0 .7em;text-wrap:pretty}
.lead .fine,.intro{color:var(--muted);font-size:.95rem;line-height:1.5}
.hundreds{display:flex;gap:1.8rem;flex:0 1 auto}
.hundreds figure{margin:0;width:clamp(8rem,17vw,11rem)}
.hundreds svg{display:block;width:100%;fill:var(--grid)}
.hundreds .on{fill:var(--on)}
.note,.lead .note{font-size:.85rem;color:var(--muted);border-left:3px solid var(--melanoma);
 padding:.1rem 0 .1rem .8rem;margin:1.2rem 0;max-width:46rem}
nav{position:sticky;top:0;z-index:2;display:flex;gap:.3rem 1.3rem;overflow-x:auto;
 scrollbar-width:none;background:var(--back);border-bottom:1px solid var(--line);
 padding:.65rem max(clamp(.9rem,3vw,2.5rem),calc((100vw - 84rem)/2 + 2.5rem));margin-top:1.6rem}
nav a{color:var(--ink);text-decoration:none;font-size:.9rem;white-space:nowrap}
nav a:hover,nav a:focus-visible{text-decoration:underline;text-underline-offset:.25em}
section{padding:2.4rem 0 .4rem;scroll-margin-top:1.6rem}
.intro{max-width:46rem;margin:0 0 1.1rem;text-wrap:pretty}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,24.5rem),1fr));
 gap:1rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;margin:0;min-width:0;
 padding:1rem clamp(.7rem,2vw,1.15rem) 1.05rem}
.wide{grid-column:1/-1}
@media (min-width:56rem){.double{grid-column:span 2}}
svg.figure{display:block;width:100%;height:auto;max-width:32rem;margin:0 auto;overflow:visible}
svg.figure text{font-family:inherit!important}
figcaption{font-size:.86rem;line-height:1.45;color:var(--muted);margin-top:.6rem;text-wrap:pretty}
.missing{color:var(--muted);background:var(--wash);border-radius:8px;padding:1.1rem;margin:0;
 font-size:.9rem;white-space:pre-line;overflow-wrap:anywhere}
.tiles{list-style:none;margin:0;padding:0;display:grid;gap:.9rem .7rem;
 grid-template-columns:repeat(8,minmax(0,1fr))}
@media (max-width:68rem){.tiles{grid-template-columns:none;grid-auto-flow:column;
 grid-auto-columns:7.6rem;overflow-x:auto;scroll-snap-type:x proximity;padding-bottom:.3rem}
 .tiles li{scroll-snap-align:start}}
.tiles li{min-width:0;font-size:.78rem;line-height:1.35;color:var(--muted)}
.tiles img{display:block;width:100%;aspect-ratio:1;object-fit:cover;border-radius:7px;
 background:var(--wash);margin-bottom:.3rem}
.tiles b{display:block;color:var(--ink);font-weight:600}
.tiles span{display:block;overflow-wrap:anywhere}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.86rem;line-height:1.4}
td{white-space:pre}
th,td{text-align:right;padding:.36rem 0 .36rem .8rem;
 border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal}
th{font-weight:500;color:var(--muted);vertical-align:bottom}
tbody tr:last-child td{border-bottom:0}
footer{padding-top:1.5rem;padding-bottom:3rem;font-size:.92rem}
details{border-top:1px solid var(--line);padding:.7rem 0}
summary{cursor:pointer;font-weight:550}
pre{font:.82rem/1.5 ui-monospace,"SF Mono",Menlo,Consolas,monospace;overflow-x:auto}
@media print{nav{display:none}body{background:none}.card,.strip{break-inside:avoid}}
"""
