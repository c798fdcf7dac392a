"""The page for a person, and the one that describes the endpoints: self-contained, everything foreign escaped."""

import html
import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from string import Template
from typing import Any

from afterfit.package import TEMPLATES
from afterfit.serving import openapi
from afterfit.serving.metrics import ServerMetrics
from afterfit.serving.service import Service

HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
MOST_LINES = 40
"""Lines of the form's field."""
Cells = Sequence[Any]


def front(service: Service, counters: ServerMetrics, ledger: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The first page and its content security policy: what is served, counts, decisions, a form that predicts."""
    bundle = service.engine.bundle if service.engine else None
    example = next(iter(openapi.examples(bundle)), {}) if bundle else {}
    return _filled(
        "serving.html",
        title=html.escape(service.name),
        served=_table(_served(service)),
        counts=_table(_counts(service, counters), "numbers"),
        ledger=_table(_decisions(ledger)) if ledger else "<p>No decision is known here.</p>",
        example=html.escape(json.dumps(example, indent=1, ensure_ascii=False)),
        lines=str(min(len(example) + 3, MOST_LINES)),
    )


def docs(service: Service, described: Mapping[str, Any]) -> tuple[str, str]:
    """What each endpoint takes and gives, for the columns that are served now, and its policy."""
    row = described["components"]["schemas"]["Row"]
    columns = [("column", "type", "example", "what training showed")]
    for name, schema in row["properties"].items():
        kind = schema["anyOf"][0]
        shown = json.dumps(schema.get("examples", [None])[0], ensure_ascii=False)
        columns.append((name, kind.get("format", kind["type"]), shown, schema.get("description", "")))
    endpoints = [("method", "endpoint", "what it does", "takes")]
    for path, methods in described["paths"].items():
        for method, schema in methods.items():
            taken = ", ".join(schema.get("requestBody", {}).get("content", {}))
            endpoints.append((method.upper(), path, schema["summary"], taken))
    answer = described["components"]["schemas"]["Answer"]["properties"]
    command = f"curl -H 'Content-Type: application/json' -d '{json.dumps(row['examples'][0])}' http://HOST:PORT/predict"
    return _filled(
        "serving-docs.html",
        title=html.escape(service.name),
        about=html.escape(described["info"]["description"]),
        endpoints=_table(endpoints),
        columns=_table(columns),
        answer=html.escape(", ".join(answer)),
        command=html.escape(command),
    )


def _filled(page: str, **values: str) -> tuple[str, str]:
    nonce = secrets.token_urlsafe(16)
    text = Template((TEMPLATES / page).read_text("utf-8")).substitute(values, nonce=nonce)
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
        "img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    return text, policy


def _table(rows: Sequence[Cells], kind: str = "words") -> str:
    head, *body = rows
    top = "".join(f"<th scope=col>{html.escape(str(cell))}</th>" for cell in head)
    lines = ["<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in body]
    return f"<table class={kind}><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _served(service: Service) -> list[Cells]:
    rows: list[Cells] = [("what", "is")]
    if service.engine is None:
        return [*rows, ("version", "none yet")]
    bundle = service.engine.bundle
    window = bundle.manifest.window
    known = service.registry
    span = f" from {_minute(window['start'])} to {_minute(window['end'])}" if window.get("start") else ""
    return [
        *rows,
        ("version", f"{bundle.version} ({service.alias})"),
        ("serving since", _moment(service.since)),
        ("predicts", f"{bundle.manifest.target} ({bundle.manifest.task})"),
        ("model", f"{bundle.manifest.builder}{', compiled' if service.engine.compiled else ''}"),
        ("trained", f"{_minute(bundle.manifest.created)} on {window.get('rows', 0):,} rows{span}"),
        ("digest", bundle.digest[:16]),
        ("prediction log", _log(service)),
        ("registry", "answers" if known.get("reachable") else "does not answer; what is loaded goes on"),
    ]


def _log(service: Service) -> str:
    if service.log is None:
        return "none"
    return "on disk before each answer" if service.acknowledged else "buffered"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _minute(moment: Any) -> str:
    """An ISO time to the minute, as a person reads it."""
    return str(moment).replace("T", " ")[:16]


def _counts(service: Service, counters: ServerMetrics) -> list[Cells]:
    requests = {key[1:]: value for key, value in counters.counts.items() if key[0] == "requests"}
    endpoints = ("/predict", "/invocations")
    good = sum(value for (endpoint, status), value in requests.items() if status == "200" and endpoint in endpoints)
    bad = sum(value for (endpoint, status), value in requests.items() if status != "200" and endpoint in endpoints)
    times = [
        histogram
        for key, histogram in counters.histograms.items()
        if key[0] == "request_seconds" and key[1] in endpoints
    ]
    number, spent = sum(sum(histogram.counts) for histogram in times), sum(histogram.total for histogram in times)
    rows: list[Cells] = [
        ("count", "now"),
        ("requests for predictions answered", f"{good:,.0f}"),
        ("turned away", f"{bad:,.0f}"),
        ("rows answered", f"{_sum(counters, 'rows'):,.0f}"),
        ("rows with an error", f"{_sum(counters, 'row_errors'):,.0f}"),
        ("mean milliseconds", f"{1000 * spent / number:.2f}" if number else "-"),
        ("outcomes taken", f"{_sum(counters, 'outcomes'):,.0f}"),
        ("workers", f"{counters.gauges.get(('workers',), 0):.0f}"),
    ]
    warnings = sorted(
        ((value, key[1:]) for key, value in counters.counts.items() if key[0] == "warnings"), reverse=True
    )
    rows += [(f"warning: {column} {code}", f"{value:,.0f}") for value, (column, code) in warnings[:8]]
    predicted = sorted((key[2], value) for key, value in counters.counts.items() if key[0] == "predictions")
    rows += [(f"predicted {label}", f"{value:,.0f}") for label, value in predicted[:8]]
    if service.shadow is not None:
        rows.append(("shadow rows", f"{_sum(counters, 'shadow_rows'):,.0f}"))
    return rows


def _sum(counters: ServerMetrics, name: str) -> float:
    return sum(value for key, value in counters.counts.items() if key[0] == name)


def _decisions(ledger: Sequence[Mapping[str, Any]]) -> list[Cells]:
    rows: list[Cells] = [("decision", "when, UTC", "verdict", "version", "alias", "by", "reason")]
    for entry in ledger:
        names = ("number", "time", "verdict", "version", "alias", "actor", "reason")
        rows.append([_minute(entry.get(name, "")) if name == "time" else entry.get(name, "") for name in names])
    return rows
