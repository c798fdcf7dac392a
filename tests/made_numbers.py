"""Numbers as a person writes them in a format."""

from decimal import Decimal

from afterfit.contract.number_formats import NumberFormat


def written(number: Decimal, form: NumberFormat) -> str:
    """A number as a person with this format writes it."""
    whole, _, fraction = f"{abs(number):f}".partition(".")
    first = 2 if form.marks.lakh else 3
    groups = [whole[-3:]]
    whole = whole[:-3]
    while whole and form.marks.thousands:
        groups.insert(0, whole[-first:])
        whole = whole[:-first]
    text = (whole + form.marks.thousands.join(groups)) + (form.marks.decimal + fraction if fraction else "")
    if form.unit:
        blank = " " if form.spaced else ""
        text = f"{form.unit}{blank}{text}" if form.unit_first else f"{text}{blank}{form.unit}"
    if number >= 0:
        return text
    return {"()": f"({text})", "6-": f"{text}-"}.get(form.negative, form.negative[:1] + text)
