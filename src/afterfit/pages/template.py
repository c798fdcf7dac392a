"""Load the template of a page: values are escaped and cleaned of secrets, and a missing name is an error."""

from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from afterfit.package import TEMPLATES
from afterfit.texts.redaction import redact

SENTENCE = 15
"""Characters; what is not longer is a name or a number, and there are many of them on a page."""


@cache
def template(name: str) -> Template:
    """A page's template, by its file name."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
    ).get_template(name)


def _clean(value: Any) -> Any:
    """A sentence without secrets; numbers, names and what is markup already stay."""
    return redact(value) if type(value) is str and len(value) > SENTENCE else value
