"""report.html: the numbers and figures of a report as one page that needs no network."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape
from string import Template
from typing import Any

from .metrics import TOP_K
from .plots import printable

MATRIX, RELIABILITY, WRONG = "confusion_matrix.png", "reliability.png", "confidently_wrong.png"

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #202124; background: #fff;
  max-width: 72rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; }
h1 { font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #dadce0; }

a { color: #1a56b0; }
dl.scores { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
dl.scores div { border: 1px solid #dadce0; border-radius: 6px; padding: .5rem 1rem; }
dl.scores dt { color: #5f6368; font-size: .85rem; }
dl.scores dd { margin: 0; font-size: 1.4rem; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; border: 1px solid #dadce0; margin: 1rem 0; }
th, td { padding: .2rem .8rem; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
thead th { position: sticky; top: 0; background: #f1f3f4; white-space: nowrap; }
tr:nth-child(even) td { background: #f8f9fa; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
table.facts td:first-child { white-space: nowrap; }
table.sorted th { cursor: pointer; }
@media (min-width: 60rem) { table.sorted td:not(.n) { min-width: 16rem; } }
img { max-width: 100%; height: auto; }
</style>
</head>
<body>
$body
<script>
for (const head of document.querySelectorAll("table.sorted th")) head.onclick = () => {
  const rows = head.closest("table").tBodies[0], at = head.cellIndex;
  const text = row => row.cells[at].textContent;
  const sign = head.dataset.sign = head.dataset.sign === "1" ? -1 : 1;
  const byColumn = (a, b) => sign * text(a).localeCompare(text(b), undefined, {numeric: true});
  rows.append(...[...rows.rows].sort(byColumn));
};
</script>
</body>
</html>
""")

# What each column of a table shows: its heading, and how its numbers are written ("": it is text).
# The script sorts by what is written, so decimals have one length and thousands no separator.
_Columns = Mapping[str, tuple[str, str]]
_SHARE = ".2%"
_CLASSES: _Columns = {
    "id": ("id", "d"),
    "name": ("class", ""),
    "precision": ("precision", _SHARE),
    "recall": ("recall", _SHARE),
    "f1": ("F1", _SHARE),
    "support": ("images", "d"),
    "predicted": ("predicted", "d"),
}
_PAIRS: _Columns = {
    "images": ("images", "d"),
    "label": ("id", "d"),
    "label_name": ("label", ""),
    "predicted": ("id", "d"),
    "predicted_name": ("predicted", ""),
}
_ERRORS: _Columns = {
    "confidence": ("confidence", ".4f"),
    "predicted": ("id", "d"),
    "predicted_name": ("predicted", ""),
    "label": ("id", "d"),
    "label_name": ("label", ""),
    "image": ("image", ""),
}
_AVERAGES: _Columns = {
    "average": ("average", ""),
    "precision": ("precision", _SHARE),
    "recall": ("recall", _SHARE),
    "f1": ("F1", _SHARE),
}
_FACTS: _Columns = {"key": ("", ""), "value": ("", "")}
_BINS: _Columns = {
    "above": ("confidence above", ".3f"),
    "up_to": ("up to", ".3f"),
    "images": ("images", "d"),
    "confidence": ("mean confidence", ".4f"),
    "accuracy": ("accuracy", ".4f"),
}
_NO_ERROR = "<p>Every image was classified rightly.</p>"
_CALIBRATION = (
    "<p>The confidence of a prediction is its probability. Where it can be trusted, of the images "
    "with a confidence near 0.8 eight in ten are right, and the bars reach the diagonal. The "
    "expected calibration error is the mean distance from it (Guo et al., arXiv:1706.04599).</p>"
)


def page(numbers: Mapping[str, Any], files: Collection[str]) -> str:
    """The page.

    Args:
        numbers: what metrics.json holds.
        files: names of the files beside the page, to link and to show.
    """
    title = f"Evaluation of {numbers['facts'].get('model', 'a model')}"
    classes = numbers["classes"]
    present = sum(row["support"] > 0 for row in classes)
    macro = f"macro: mean of the {present} classes with images"
    averages = [
        {"average": macro, **numbers["macro"]},
        {"average": "weighted by images", **numbers["weighted"]},
    ]
    sections = {
        "Confusion matrix": _figure(MATRIX, files) or "<p>Too many classes to draw it.</p>",
        "Most confused pairs": _table(numbers["confused_pairs"], _PAIRS, "sorted") or _NO_ERROR,
        "Most confidently wrong": _figure(WRONG, files)
        + (_table(numbers["confidently_wrong"], _ERRORS, "sorted") or _NO_ERROR),
        "Calibration": _CALIBRATION
        + _figure(RELIABILITY, files)
        + _table(numbers["calibration"], _BINS),
        "Classes": _table(averages, _AVERAGES)
        + "<p>A click on a heading sorts by that column.</p>"
        + _table(classes, _CLASSES, "sorted"),
    }
    if numbers["unreadable"]:
        lines = "".join(f"<li>{_text(line)}</li>" for line in numbers["unreadable"])
        sections["Left out"] = f"<p>These images could not be read.</p><ul>{lines}</ul>"
    anchors = {heading: heading.lower().replace(" ", "_") for heading in sections}
    body = [
        f"<h1>{_text(title)}</h1>",
        _scores(numbers),
        _table([{"key": k, "value": v} for k, v in numbers["facts"].items()], _FACTS, "facts"),
        "<p>Sections: " + _links({f"#{anchor}": h for h, anchor in anchors.items()}) + "</p>",
        "<p>Files: " + _links({name: name for name in sorted(files)}) + "</p>",
    ]
    body += [f'<h2 id="{anchors[h]}">{h}</h2>\n{content}' for h, content in sections.items()]
    return _PAGE.substitute(title=_text(title), body="\n".join(body))


def _scores(numbers: Mapping[str, Any]) -> str:
    shown = {
        "images": f"{numbers['images']}",
        "top-1": f"{numbers['top1']:.2%}",
        f"top-{min(TOP_K, len(numbers['classes']))}": f"{numbers['top5']:.2%}",
        "loss": f"{numbers['loss']:.4f}",
        "macro F1": f"{numbers['macro']['f1']:.2%}",
        "calibration error": f"{numbers['expected_calibration_error']:.4f}",
    }
    cells = "".join(f"<div><dt>{key}</dt><dd>{value}</dd></div>" for key, value in shown.items())
    return f'<dl class="scores">{cells}</dl>'


def _table(rows: Sequence[Mapping[str, Any]], columns: _Columns, kind: str = "") -> str:
    """A table; nothing of no rows, and no column of which nothing is known."""
    known = [key for key in columns if any(row[key] is not None for row in rows)]
    if not known:
        return ""
    head = "".join(_cell("th", *columns[key]) for key in known)
    lines = [f"<thead><tr>{head}</tr></thead>"] if any(columns[k][0] for k in known) else []
    for row in rows:
        cells = []
        for key in known:
            form = columns[key][1]
            value = "" if row[key] is None else format(row[key], form)
            cells.append(_cell("td", value, form))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([f'<table class="{kind}">', *lines, "</table>"])


def _cell(tag: str, text: str, form: str) -> str:
    return f"<{tag}{' class=n' if form else ''}>{_text(text)}</{tag}>"


def _figure(name: str, files: Collection[str]) -> str:
    if name not in files:
        return ""
    return f'<p><a href="{name}"><img src="{name}" alt="{name}"></a></p>'


def _links(targets: Mapping[str, str]) -> str:
    return " · ".join(f'<a href="{target}">{text}</a>' for target, text in targets.items())


def _text(text: str) -> str:
    return escape(printable(text))
