"""Load the template of a page: values are escaped, and a missing name is an error."""

from functools import cache

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from afterfit.package import TEMPLATES


@cache
def template(name: str) -> Template:
    """A page's template, by its file name."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)
