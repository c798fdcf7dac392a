"""What is served, as data: the model's story, and an OpenAPI description with the use case's own columns."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from afterfit.contract.columns import PLACEHOLDERS, Column
from afterfit.contract.datetimes import NUMBERED
from afterfit.model.answer import keys, task_of
from afterfit.model.bundle import Bundle
from afterfit.serving.auth import Tokens
from afterfit.serving.engine import Engine
from afterfit.serving.http_errors import CODES, HttpError
from afterfit.serving.payloads import CSV, FORMS, JSON, PARQUET

Schema = dict[str, Any]
TYPES = {"number": "number", "integer": "integer", "boolean": "boolean", "category": "string", "datetime": "string"}
NAMED = 8
"""Categories that a description names."""
ERRORS = (400, 408, 413, 415, 422, 429, 503, 504)
"""Codes with which a request of rows or outcomes may be refused."""


def model(engine: Engine | None, alias: str, since: float) -> dict[str, Any]:
    """What /model answers.

    Raises:
        HttpError: 503, nothing is loaded.
    """
    if engine is None:
        raise HttpError(503, "No version is loaded yet.")
    bundle = engine.bundle
    manifest = bundle.manifest.to_dict()
    manifest["window"] = {**manifest["window"], "name": _shown(str(manifest["window"].get("name", "")))}
    return {
        "name": manifest.pop("name"),
        "version": bundle.version,
        "alias": alias,
        "digest": bundle.digest,
        "serving_since": datetime.fromtimestamp(since, timezone.utc).isoformat(timespec="seconds"),
        "compiled": engine.compiled is not None,
        **manifest,
        "contract": _contract(bundle),
        "example": examples(bundle),
    }


def _shown(source: str) -> str:
    """A source's name without the folders of the machine that trained on it."""
    return source if "://" in source else source.replace("\\", "/").rpartition("/")[2]


def examples(bundle: Bundle) -> list[dict[str, Any]]:
    """The example rows as anybody may see them: a private column has a made-up value of its kind."""
    columns = bundle.scorer.contract.columns
    hidden = {column.name: PLACEHOLDERS[column.kind] for column in columns if column.private}
    whole = {column.name for column in columns if column.kind == "integer"}  # a table with gaps holds them as floats
    return [
        {name: int(value) if name in whole and _is_whole(value) else value for name, value in {**row, **hidden}.items()}
        for row in bundle.example
    ]


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def _contract(bundle: Bundle) -> dict[str, Any]:
    """The contract without what training showed of private columns."""
    unseen: dict[str, Any] = {"categories": (), "low": None, "high": None, "earliest": None, "latest": None}
    contract = bundle.scorer.contract.to_dict()
    shown = [replace(column, **unseen) if column.private else column for column in bundle.scorer.contract.columns]
    return {**contract, "columns": [column.to_dict() for column in shown]}


def _column(column: Column, example: Any) -> Schema:
    schema: Schema = {"anyOf": [{"type": TYPES[column.kind]}, {"type": "null"}]}
    if column.kind == "datetime":
        schema["anyOf"][0]["format"] = "date-time"
    if column.private:
        schema["description"] = "Private: nothing is told of its values."
    elif column.kind in {"number", "integer"} and column.low is not None:
        schema["description"] = (
            f"Trained on {column.low:g} to {column.high:g}; values outside are answered with a warning."
        )
    elif column.kind == "datetime" and column.earliest is not None:
        schema["description"] = f"Trained on {column.earliest} to {column.latest}."
    elif column.kind == "category":
        some = ", ".join(column.categories[:NAMED])
        more = f" and {len(column.categories) - NAMED} more" if len(column.categories) > NAMED else ""
        schema["description"] = f"Known: {some}{more}; others are answered with a warning."
    written = column.number_format or (column.datetime_format if column.datetime_format in NUMBERED else None)
    if written is not None:
        schema["anyOf"].insert(1, {"type": "string" if column.kind != "datetime" else "number"})
        schema["description"] = f"{schema.get('description', '')} Also written as {written!r}.".strip()
    if example is not None:
        schema["examples"] = [example]
    return schema


def row_schema(engine: Engine) -> Schema:
    """A row: the contract's columns."""
    example = next(iter(examples(engine.bundle)), {})
    columns = engine.bundle.scorer.contract.columns
    return {
        "type": "object",
        "title": "Row",
        "description": "A value that does not fit costs only its own row the prediction: it gets an error.",
        "properties": {column.name: _column(column, example.get(column.name)) for column in columns},
        "required": [column.name for column in columns if column.required],
        "additionalProperties": True,
        "examples": [example],
    }


def answer_schema(engine: Engine) -> Schema:
    """An answer, by the kind of model."""
    classes = engine.bundle.scorer.classes
    number: Schema = {"type": ["number", "null"]}
    note = {"column": {"type": ["string", "null"]}, "code": {"type": "string"}, "value": {}}
    schemas: dict[str, Schema] = {
        "prediction_id": {"type": "string"},
        "prediction": number if classes is None else {"enum": [*classes, None]},
        "probabilities": {"type": ["object", "null"]},
        "model_version": {"type": ["string", "null"]},
        "warnings": {"type": "array", "items": {"type": "object", "properties": note}},
        "error": {"anyOf": [{"type": "null"}, {"type": "object", "properties": note}]},
    }
    properties = {key: schemas.get(key, number) for key in keys(task_of(classes))}
    return {"type": "object", "title": "Answer", "properties": properties, "required": list(properties)}


def openapi(name: str, engine: Engine | None, tokens: Tokens) -> dict[str, Any]:
    """The OpenAPI 3.1 description of all endpoints, with the columns of the version that is served now.

    Raises:
        HttpError: 503, nothing is loaded.
    """
    if engine is None:
        raise HttpError(503, "No version is loaded yet.")
    manifest = engine.bundle.manifest
    schemas = {"Row": row_schema(engine), "Answer": answer_schema(engine), "Error": _error(), **_outcome()}
    secured = {"predict": tokens.predict is not None, "outcomes": tokens.outcomes is not None}
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": name,
            "version": engine.bundle.version or "-",
            "description": f"Predicts {manifest.target} ({manifest.task}).",
        },
        "paths": {**_predicting(engine, secured=secured["predict"]), **_others(secured)},
        "components": {"schemas": schemas},
    }
    if any(secured.values()):
        described["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return described


def _error() -> Schema:
    properties = {"code": {"type": "string"}, "message": {"type": "string"}, "detail": {}}
    return {"type": "object", "title": "Error", "properties": properties, "required": list(properties)}


def _outcome() -> Schema:
    properties = {
        "prediction_id": {"type": "string", "minLength": 1, "maxLength": 200},
        "key": {"type": "object", "description": "The use case's key columns and their values."},
        "value": {"type": ["string", "number", "boolean"], "description": "The true target."},
    }
    either = [{"required": ["prediction_id", "value"]}, {"required": ["key", "value"]}]
    outcome = {"type": "object", "properties": properties, "anyOf": either, "additionalProperties": False}
    unknown = {"type": "array", "items": {"type": "string"}}
    counts = {"taken": {"type": "integer"}, "unknown": unknown, "unchecked": {"type": "string"}}
    return {"Outcome": outcome, "Taken": {"type": "object", "properties": counts, "required": ["taken", "unknown"]}}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _one_or_many(name: str) -> Schema:
    return {"anyOf": [_reference(name), {"type": "array", "items": _reference(name)}]}


def _responses(content: Mapping[str, Any], errors: tuple[int, ...]) -> dict[str, Any]:
    failed = {"application/json": {"schema": _reference("Error")}}
    refusals = {str(code): {"description": CODES[code].replace("_", " "), "content": failed} for code in errors}
    return {"200": {"description": "Answered.", "content": dict(content)}, **refusals}


def _operation(name: str, summary: str, body: Mapping[str, Any], answer: Schema, *, secured: bool) -> dict[str, Any]:
    errors = (*ERRORS, 401) if secured else ERRORS
    operation = {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": dict(body)},
        "responses": _responses({JSON: {"schema": answer}}, errors),
    }
    return {"post": operation | ({"security": [{"bearer": []}]} if secured else {})}


def _predicting(engine: Engine, *, secured: bool) -> dict[str, Any]:
    rows = {"type": "array", "items": _reference("Row")}
    columns, data = {"type": "array", "items": {"type": "string"}}, {"type": "array", "items": {"type": "array"}}
    split = {"type": "object", "properties": {"columns": columns, "data": data}, "required": ["columns", "data"]}
    forms = {form: split if form == "dataframe_split" else rows for form in FORMS}
    records = {
        "type": "object",
        "properties": forms,
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
    }
    example = examples(engine.bundle)[:2]
    taken = {
        JSON: {"schema": records, "example": {"dataframe_records": example}},
        CSV: {"schema": {"type": "string"}},
        PARQUET: {"schema": {"type": "string", "format": "binary"}},
    }
    answers = {"type": "object", "properties": {"predictions": {"type": "array", "items": _reference("Answer")}}}
    plain = {JSON: {"schema": _one_or_many("Row"), "example": example[0] if example else {}}}
    return {
        "/predict": _operation(
            "predict", "One row, or a list of rows.", plain, _one_or_many("Answer"), secured=secured
        ),
        "/invocations": _operation(
            "invocations", "Rows as `mlflow models serve` takes them.", taken, answers, secured=secured
        ),
    }


def _others(secured: Mapping[str, bool]) -> dict[str, Any]:
    def get(name: str, summary: str, kind: str = JSON, *, guarded: bool = False) -> dict[str, Any]:
        content = {kind: {"schema": {"type": "string"} if kind != JSON else {}}}
        operation = {"operationId": name, "summary": summary}
        if guarded:
            return {"get": {**operation, "responses": _responses(content, (401, 503)), "security": [{"bearer": []}]}}
        return {"get": {**operation, "responses": _responses(content, (503,))}}

    taken = {JSON: {"schema": _one_or_many("Outcome")}}
    return {
        "/outcomes": _operation(
            "outcomes", "True targets of predictions.", taken, _reference("Taken"), secured=secured["outcomes"]
        ),
        "/model": get("model", "What is served.", guarded=secured["predict"]),
        "/live": get("live", "Whether the process lives."),
        "/ready": get("ready", "Whether predictions can be given."),
        "/metrics": get("metrics", "Counts in Prometheus' format.", "text/plain"),
    }
