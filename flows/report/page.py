"""One self-contained HTML page: its style, its escaping, and how it reaches the disk."""

from __future__ import annotations

import base64
import hashlib
import html
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .text import clean

LIGHT = {
    "page": "#f6f7f9", "surface": "#ffffff", "ink": "#15181d", "muted": "#5a6270", "grid": "#dfe3e8",
    "other": "#8a93a0", "series-0": "#2a78d6", "series-1": "#12936f", "series-2": "#d98a00", "series-3": "#6a4fc4",
    "series-4": "#d8434a", "series-5": "#c2569c", "series-6": "#5f8a1f", "series-7": "#9a5b2c",
}  # fmt: skip
DARK = {
    "page": "#101216", "surface": "#181b21", "ink": "#eceef1", "muted": "#a2aab6", "grid": "#303641",
    "other": "#7d8694", "series-0": "#5a9cf0", "series-1": "#2bb48c", "series-2": "#e0a130", "series-3": "#9f8bf0",
    "series-4": "#ee7176", "series-5": "#dd82bc", "series-6": "#8fb94a", "series-7": "#c98b5c",
}  # fmt: skip

LONG_TABLE = 40


def _variables(theme: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in theme.items())


STYLE = (
    ":root{color-scheme:light dark;--font:system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif;"
    + _variables(LIGHT)
    + "}\n@media (prefers-color-scheme:dark){:root{"
    + _variables(DARK)
    + "}}\n"
    + """*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 var(--font)}
main{max-width:1120px;margin:0 auto;padding:36px 20px 60px}
h1{font-size:28px;line-height:1.2;margin:0 0 6px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:16px;line-height:1.3;margin:0 0 10px;font-weight:650}
h3{font-size:14px;line-height:1.3;margin:16px 0 6px;font-weight:600}
.said{margin:0;padding-left:20px;font-size:13.5px;overflow-wrap:anywhere}
p{margin:0 0 10px}.lead{color:var(--muted);overflow-wrap:anywhere;margin-bottom:22px}
.state{display:inline-block;border:1px solid var(--grid);border-radius:99px;padding:1px 10px;font-size:13px;
color:var(--muted);background:var(--surface);vertical-align:middle;margin-left:8px;font-weight:500;letter-spacing:0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(158px,1fr));gap:12px;margin:0 0 20px;padding:0}
.tiles>div,figure,section{background:var(--surface);border:1px solid var(--grid);border-radius:10px}
.tiles>div{padding:13px 15px;display:flex;flex-direction:column}
.tiles dt{font-size:13px;color:var(--muted)}
.tiles dd{margin:0}
.tiles .value{font-size:22px;white-space:nowrap;font-weight:650;line-height:1.25;letter-spacing:-.01em}
.tiles .more{font-size:12.5px;color:var(--muted);line-height:1.35}
.grid{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:16px;align-items:stretch}
figure,section{margin:0;padding:16px 18px;min-width:0}
figure{display:flex;flex-direction:column}
.wide{grid-column:1/-1}
.plot{display:block;width:100%;height:auto;margin:auto 0}
svg.plot *{stroke-linejoin:round;stroke-linecap:butt}svg.plot image{image-rendering:pixelated}
figcaption,.note{color:var(--muted);font-size:13px;line-height:1.45;margin-top:10px;overflow-wrap:anywhere}
.scroll{overflow:auto;margin:0 -18px;padding:0 18px}
.tall{max-height:720px}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 10px 5px 0;border-bottom:1px solid var(--grid);vertical-align:top}
td{max-width:34ch;overflow-wrap:break-word}
thead th{position:sticky;top:0;background:var(--surface);color:var(--muted);font-weight:550;vertical-align:bottom}
tbody th{font-weight:500;max-width:34ch;overflow-wrap:break-word}
td:not(.number){min-width:9ch}.number{text-align:right}td.number{white-space:nowrap}
th button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer;text-align:inherit}
th button::after{content:"\\00a0↕";opacity:.45}
th[aria-sort=ascending] button::after{content:"\\00a0↑";opacity:1}
th[aria-sort=descending] button::after{content:"\\00a0↓";opacity:1}
.below{color:var(--series-4)}
code,pre{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
pre{background:var(--page);border:1px solid var(--grid);border-radius:8px;padding:10px 12px;overflow:auto;
margin:0 0 14px;white-space:pre-wrap}
summary{cursor:pointer;margin:12px 0 8px;color:var(--muted)}
@media (max-width:820px){.grid{grid-template-columns:minmax(0,1fr)}main{padding:22px 12px 40px}
figure.wide{overflow-x:auto}.wide>.plot,.wide picture .plot{min-width:700px}}
@media print{body{background:none}.tall{max-height:none}figure,section{break-inside:avoid}}
"""
)

# Without JavaScript the tables stand in the order in which they were written.
SCRIPT = """for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending"
        || (head.classList.contains("number") && head.getAttribute("aria-sort") === null);
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const order = (one, two) => {
        const a = value(one), b = value(two);
        if (a === "" || b === "") return (a === "") - (b === "");
        const sign = down ? -1 : 1;
        if (head.classList.contains("number")) return sign * (Number(a) - Number(b));
        return sign * a.localeCompare(b, undefined, {numeric: true});
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}
"""


def escape(text: object) -> str:
    """Escape text for an element's content or an attribute; characters that would disturb a page are replaced."""
    return html.escape(clean(text), quote=True)


def escape_block(text: object) -> str:
    """Escape text of several lines."""
    return html.escape(clean(text, newlines=True), quote=True)


@dataclass(frozen=True)
class Cell:
    """One cell of a table: the text shown, and the number behind it where it is a number."""

    text: str
    value: float | None = None
    mark: str = ""


def table_markup(heads: Sequence[tuple[str, bool]], rows: Iterable[Sequence[Cell]], label: str) -> str:
    """Give a sortable table; each head says whether its column holds numbers, the first column names the row."""
    rows = list(rows)
    tall = " tall" if len(rows) > LONG_TABLE else ""
    lines = [f'<div class="scroll{tall}"><table class="sortable" aria-label="{escape(label)}"><thead><tr>']
    for head, numeric in heads:
        kind = ' class="number"' if numeric else ""
        lines.append(f'<th scope="col"{kind}>{escape(head)}</th>')
    lines.append("</tr></thead>\n<tbody>\n")
    for row in rows:
        lines.append("<tr>")
        for index, (cell, (_, numeric)) in enumerate(zip(row, heads, strict=True)):
            kinds = " ".join(filter(None, ("number" if numeric else "", cell.mark)))
            attributes = f' class="{kinds}"' if kinds else ""
            if numeric:
                attributes += f' data-value="{"" if cell.value is None else format(cell.value, ".10g")}"'
            name = "th" if index == 0 else "td"
            scope = ' scope="row"' if index == 0 else ""
            lines.append(f"<{name}{scope}{attributes}>{escape(cell.text)}</{name}>")
        lines.append("</tr>\n")
    lines.append("</tbody></table></div>\n")
    return "".join(lines)


def tiles_markup(tiles: Iterable[tuple[str, str, str]]) -> str:
    """Give headline figures: what it is, the value, and a few words more."""
    lines = ['<dl class="tiles">\n']
    for what, value, more in tiles:
        words = f'<dd class="more">{escape(more)}</dd>' if more else ""
        lines.append(f'<div><dt>{escape(what)}</dt><dd class="value">{escape(value)}</dd>{words}</div>\n')
    lines.append("</dl>\n")
    return "".join(lines)


def document(title: str, body: str) -> str:
    """Give a whole page. Its policy lets it load nothing and run nothing but its own script."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n{body}</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def write_atomically(path: Path, text: str) -> Path:
    """Write a file so that a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path
