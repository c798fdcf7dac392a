"""Whether a text is one query that only reads, as far as its words tell; what it does is held by the connection too."""

import re
from collections.abc import Iterator, Sequence

from afterfit.errors import SourceError
from afterfit.texts.redaction import redact

BEGINS = frozenset({"select", "with", "values", "table", "from"})
"""The words that a query begins with; `from` in DuckDB."""
CHANGES = frozenset({"insert", "update", "delete", "merge"})
"""The words that change rows, where a statement can begin in a query; followed by a parenthesis some are functions."""
DEFINES = frozenset({"create", "alter", "drop", "truncate"})
OBJECTS = frozenset(
    {
        "table",
        "view",
        "index",
        "database",
        "schema",
        "user",
        "login",
        "role",
        "trigger",
        "procedure",
        "proc",
        "function",
    }
)
"""A word of the one kind before one of the other: SQL Server needs no semicolon between two statements."""
_TOKEN = re.compile(
    r"""
      (?P<hint>/\*M?!)                                      # MySQL runs what stands in such a comment
    | (?P<comment>--[^\n]*|/\*)
    | (?P<dollar>\$(?:[A-Za-z_]\w*)?\$)                     # PostgreSQL: text up to the same mark
    | (?P<quoted>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]\n]*\])
    | (?P<open>['"`])                                       # a quote that is never closed
    | (?P<word>[^\W\d][\w$]*)
    | (?P<mark>[();])
    | (?P<rest>\s+|.)
    """,
    re.VERBOSE | re.DOTALL,
)


def require_query(query: str) -> str:
    """The text without the semicolon at its end, if it is one query.

    Raises:
        SourceError: it is empty, more than one statement, another statement than a query, or a query that changes
            something: `with x as (delete …)`, `select … into`.
    """
    query = query.removeprefix("\ufeff")
    tokens = list(_tokens(query))
    while tokens and tokens[-1] == ";":
        tokens.pop()
        query = query.rstrip().removesuffix(";")
    if ";" in tokens:
        raise _refusal("it is more than one statement", query)
    words = [token for token in tokens if token not in {"(", ")"}]
    if not words:
        raise _refusal("it is empty", query)
    if words[0] not in BEGINS:
        raise _refusal(f"it begins with '{words[0]}'", query)
    changing = _changing_word(tokens)
    if changing:
        raise _refusal(f"'{changing}' in it changes something", query)
    return query


def _tokens(query: str) -> Iterator[str]:
    """Words in lower case, parentheses, semicolons; quoted text and names as `'`, and nothing of comments."""
    place = 0
    while place < len(query):
        match = _TOKEN.match(query, place)
        assert match is not None  # noqa: S101 - for the reader: the last alternative takes any character
        kind, place = match.lastgroup, match.end()
        if kind == "hint":
            raise _refusal("a comment that MySQL runs stands in it", query)
        if kind == "comment" and match[0] == "/*":
            place = _end_of_comment(query, place)
        elif kind == "dollar":
            end = query.find(match[0], place)
            place = len(query) if end < 0 else end + len(match[0])
            yield "'"
        elif kind == "word":
            yield match[0].lower()
        elif kind == "mark":
            yield match[0]
        elif kind != "comment" and not match[0].isspace():
            yield "'"


def _end_of_comment(query: str, place: int) -> int:
    """Behind a comment's end. One inside another is refused: databases do not agree where such a comment ends."""
    end, inner = query.find("*/", place), query.find("/*", place)
    if 0 <= inner < end:
        raise _refusal("a comment stands inside another", query)
    return len(query) if end < 0 else end + 2


def _changing_word(tokens: Sequence[str]) -> str:
    """The word of a statement that changes something, where one can begin; `into` anywhere; or empty."""
    behind = zip(tokens, ["(", *tokens], [*tokens[1:], ""], strict=False)
    for token, before, after in behind:
        begins = token in CHANGES and before in {"(", ")"} and after != "("
        batch = (token, after) == ("delete", "from") or (token in DEFINES and after in OBJECTS)
        if begins or batch or token in {"into", "exec", "execute"}:
            return token
    return ""


def _refusal(why: str, query: str) -> SourceError:
    said = " ".join(redact(query).split())[:300]
    return SourceError(f"source.query must be a SELECT that only reads, and {why}: {said}")
