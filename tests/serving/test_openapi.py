"""What /openapi.json says of a row."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from afterfit.contract.columns import formatted_column
from afterfit.contract.contract import Contract
from afterfit.serving import openapi


@pytest.mark.parametrize(
    ("written", "types"),
    [
        ("1.234,5", ["number", "string", "null"]),
        ("epoch ms", ["string", "number", "null"]),
        ("%d.%m.%Y", ["string", "null"]),
    ],
)
@pytest.mark.parametrize("private", [False, True])
def test_a_column_with_a_format_says_that_it_may_come_so(written, types, private, monkeypatch):
    column = replace(formatted_column("x", written), private=private)
    bundle = SimpleNamespace(scorer=SimpleNamespace(contract=Contract((column,))), example=[])
    monkeypatch.setattr(openapi, "examples", lambda _: [])
    schema = openapi.row_schema(SimpleNamespace(bundle=bundle))["properties"]["x"]
    assert [option["type"] for option in schema["anyOf"]] == types
    assert (f"Also written as {written!r}." in schema.get("description", "")) == (len(types) == 3)
