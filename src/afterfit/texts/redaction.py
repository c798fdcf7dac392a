"""Take secrets out of text: `redact` cleans what is printed, logged, tagged or stored and was not written here.

A secret is known by where it stands (a password in an address, `token=…`, an Authorization header, the path of a chat's
webhook, a key of a cloud), or by its value: of environment variables whose names say so, of addresses in the
environment and in settings, and of what stood in for `${NAME}`. A known value is found percent-encoded, escaped for
JSON, Python or HTML, in base64 and cut off at the end too. What is masked too much costs a word of a message.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

MASK = "***"
SHORTEST, BOUNDED, CUT = 4, 8, 6
"""Characters: shorter values are not looked for, as they are part of any text; values below the second number only
where they stand alone; a value that is cut off is found from so many characters on."""
PUBLIC = frozenset(
    {"true", "false", "none", "null", "localhost", "127.0.0.1", "0.0.0.0"}  # noqa: S104 - no address is bound here
    | {"password", "secret", "token", "default", "latest", "production", "staging"}
)
"""Values that no text is to be robbed of, whatever variable has them."""

_WORD = (
    r"pass(?:word|wd|phrase|code)?|pwd|secret|token|api[_-]?key|(?:access|account|private|subscription|function)[_-]?key"
    r"|(?:aws)?access[_-]?key[_-]?id|shared[_-]?access[_-]?(?:key|signature)|credentials?|signature|sig|auth"
)
_ANY_WORD = re.compile(_WORD, re.IGNORECASE)
"""What all pairs have: where it is not, the slower patterns of pairs find nothing."""
_SECRET_NAME = re.compile(rf"(?:{_WORD}|_key|salt|dsn|webhook|connection_?string)(?:_?\d+)?$", re.IGNORECASE)
_PLAIN_NAME = re.compile(r"_FILE$|_PATH$|_DIR$|^SSH_AUTH_SOCK$|^(?:OLD)?PWD$", re.IGNORECASE)
_SHORT_WORDS = re.compile(r"[^:=@'\"/\-]{0,15}")
"""What no place can be in: a name, a number, a few words."""
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_QUOTED = r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|\{[^}\n]*\}"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,30}:/{1,2}[^\s\"'<>]+")
_USERINFO = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{1,30}:/{2,3})"
    r"(?:(?P<user>[^\s/:@?#\"'<>]{0,200}):(?P<password>[^\s/?#@\"'<>]{0,500}@|[^\s\"'<>]{0,1000}@)|(?P<only>[^\s/:@?#\"'<>]{1,500})@)"
)
_HOOKS = re.compile(
    r"(?P<host>\b(?:hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)|(?:[\w-]+\.)?discord(?:app)?\.com/api/"
    r"(?:v\d+/)?webhooks|[\w.-]{1,100}\.office(?:365)?\.com/webhook[\w]*|chat\.googleapis\.com/v1/spaces|"
    r"hooks\.zapier\.com/hooks|hook\.[\w.]{0,20}make\.com|maker\.ifttt\.com/trigger|events\.pagerduty\.com/integration|"
    r"api\.opsgenie\.com|[\w.-]{1,100}\.logic\.azure\.com|open\.(?:feishu\.cn|larksuite\.com)/open-apis/bot|"
    r"[\w.-]{1,100}/(?:api/)?(?:hooks|webhooks?|incoming)(?=/[\w-]{16,})))/[^\s\"'<>]*",
    re.IGNORECASE,
)
_BOT = re.compile(r"\bbot\d{5,}(?::|%3A)[\w-]{10,}", re.IGNORECASE)
_QUERY = re.compile(
    r"(?P<key>[?&;][^=&;#\s\"'<>]{0,60}(?:pass|pwd|secret|token|key|sig|auth|credential)[^=&;#\s\"'<>]{0,40}=|"
    r"[?&](?:code|sas|sv|se)=)"
    rf"(?:{_QUOTED}|[^&;#\s\"'<>]*)",
    re.IGNORECASE,
)
_PAIR = re.compile(
    rf"(?P<key>(?<![A-Za-z0-9])[\w.\-]{{0,40}}?(?:{_WORD})\d?(?P<quote>\\?['\"]?)\s{{0,3}}(?:=(?!=)|%3D))\s{{0,3}}"
    rf"(?:{_QUOTED}|(?!['\"])(?:(?!%3B|%26)[^\s&;,'\"<>)\]}}])+)",
    re.IGNORECASE,
)
_SEMICOLON_PAIR = re.compile(rf"(?P<key>;\s{{0,3}}(?:{_WORD})\s{{0,3}}=)[^;\n\"']{{1,200}}(?=;)", re.IGNORECASE)
_JSON_PAIR = re.compile(
    rf"(?P<key>\\?(?P<quote>['\"])[\w.\-]{{0,40}}?(?:{_WORD})\d?\\?(?P=quote)\s{{0,3}}:\s{{0,3}})"
    rf"(?:{_QUOTED}|\\\"(?:[^\"\\])*\\\")",
    re.IGNORECASE,
)
_COLON_PAIR = re.compile(
    r"(?P<key>(?<![\w.])(?:password|passwd|pwd|passphrase|api[_-]?key|secret[_-]?key|access[_-]?key)\s{0,2}:\s{1,3})"
    r"(?=[^\s,;]*[0-9!#$%^&*@_])[^\s,;\"'<>]+",
    re.IGNORECASE,
)
_OPTION = re.compile(
    rf"(?P<key>(?<!\S)--?[\w-]{{0,30}}?(?:{_WORD}|(?<=-)u|user)[ \t]+)(?:{_QUOTED}|(?!--)\S+)", re.IGNORECASE
)
_HEADER = re.compile(
    r"(?P<key>\b(?:proxy-)?authorization\\?['\"]?\s{0,3}[:=,]\s{0,3}\\?(?:b(?=['\"]))?['\"]?)(?:[A-Za-z][A-Za-z0-9-]{1,30}\s{1,3})?[^\s'\"<>]+"
    r"|(?P<other>\b(?:x-[\w-]{1,40}(?:key|token|secret)|set-cookie|cookie)\\?['\"]?\s{0,3}[:=]\s{0,3}['\"]?)[^\s'\"<>]+",
    re.IGNORECASE,
)
_SCHEME = re.compile(
    r"\b(?P<key>(?:bearer|basic|negotiate)\s{1,3})(?=[A-Za-z+/._~-]*[0-9=])[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE
)
_SHAPE = re.compile(
    r"\b(?:(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|"
    r"xox[a-z]-[\w-]{10,}|xapp-[\w-]{10,}|sk-[A-Za-z0-9_-]{20,}|AIza[\w-]{30,}|ya29\.[\w.-]{10,}|"
    r"dapi[0-9a-f]{32}|hf_[A-Za-z0-9]{20,}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{20,}|"
    r"eyJ[\w-]{8,}\.eyJ[\w-]{5,}(?:\.[\w-]*)?)"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)",
    re.DOTALL,
)

USER = "MLFLOW_TRACKING_USERNAME"
PLAIN_VARIABLES = frozenset({"HOME", "PWD", "USER", "LOGNAME", "HOSTNAME", "PATH", "LANG", "TMPDIR", "SHELL"})
"""Variables whose values are no secrets, though settings name them."""
SPACE = r"\s|%20|%0[aAdD]|\+|\\[nrt]"
ENTITIES = {"&": ["&amp;"], "<": ["&lt;"], ">": ["&gt;"], '"': ["&quot;", "&#34;"], "'": ["&#x27;", "&#39;", "&apos;"]}
"""How HTML writes a character."""
_learned: dict[str, None] = {}


def redact(text: str) -> str:
    """The text without secrets; what says that there was one stays.

    It may be called again on its own result. Cut a text after it was cleaned, not before: a half secret is harder to
    find.
    """
    return _clean(text, _known())


def redacted(value: Any) -> Any:
    """Data for JSON with every text in it cleaned; keys stay as they are."""
    return _cleaned(value, _known())


def learn(value: str) -> None:
    """Take a text for a secret from now on in this process, such as the value of `${NAME}`."""
    for secret in (value, *_secrets_in(value)):
        if _worth_hiding(secret):
            _learned[secret] = None


def learn_settings(content: Any, key: str = "") -> None:
    """Learn the secrets of settings: in addresses, under keys whose names say so, and what stands in for `${NAME}`."""
    if isinstance(content, str):
        named = _VARIABLE.findall(content)
        if _SECRET_NAME.search(key) and "://" not in content:
            named += [content]
            learn(content if content not in os.environ else "")
        for value in (os.environ.get(name, "") for name in named if name not in PLAIN_VARIABLES):
            learn(value)
        for secret in _secrets_in(content):
            learn(secret)
    elif isinstance(content, Mapping):
        for name, item in content.items():
            learn_settings(item, str(name))
    elif isinstance(content, list | tuple):
        for item in content:
            learn_settings(item, key)


def forget() -> None:
    """Forget what was learned: for a test, whose secrets are not those of the next one."""
    _learned.clear()


def _cleaned(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return _clean(value, secrets)
    if isinstance(value, Mapping):
        return {key: _cleaned(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item, secrets) for item in value]
    return value


def _clean(text: str, secrets: tuple[str, ...]) -> str:
    if secrets:
        text = _pattern(secrets).sub(MASK, text)
        text = _without_cut_off_end(text, secrets)
    if not text.isascii():  # a file's name that is no UTF-8 would end whoever prints or stores it
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if _SHORT_WORDS.fullmatch(text) else _by_place(text)


def _by_place(text: str) -> str:
    text = _USERINFO.sub(_userinfo, text)
    text = _HOOKS.sub(rf"\g<host>/{MASK}", text)
    text = _BOT.sub(f"bot{MASK}", text)
    pairs = _ANY_WORD.search(text) is not None
    for pattern in (_SEMICOLON_PAIR, _QUERY, _PAIR, _OPTION, _COLON_PAIR) if pairs else (_QUERY, _OPTION, _COLON_PAIR):
        text = pattern.sub(rf"\g<key>{MASK}", text)
    text = _JSON_PAIR.sub(_json_pair, text) if pairs else text
    text = _HEADER.sub(lambda match: f"{match['key'] or match['other']}{MASK}", text)
    text = _SCHEME.sub(rf"\g<key>{MASK}", text)
    return _SHAPE.sub(MASK, text)


def _userinfo(match: "re.Match[str]") -> str:
    scheme, user, password = match["scheme"], match["user"], match["password"]
    if password is not None and password[:-1].lower() in PUBLIC | {MASK}:  # a pattern to write after, or masked already
        return match[0]
    web = scheme.lower().startswith(("http", "ftp", "git", "ws"))
    if match["only"] is not None:  # of a database it is the user's name; on the web a token stands there
        return f"{scheme}{MASK}@" if web else match[0]
    if web and re.match(r"\d{1,5}(?:[/?#]|$)", password):  # a port, and an @ further behind
        return match[0]
    return f"{scheme}{user}:{MASK}@"


def _json_pair(match: "re.Match[str]") -> str:
    """The pair with its value masked; it keeps its quotes, so that JSON stays JSON."""
    quotes = re.match(r"\\?['\"]", match[0][len(match["key"]) :])
    quote = quotes[0] if quotes else '"'
    return f"{match['key']}{quote}{MASK}{quote}"


def _known() -> tuple[str, ...]:
    """The values that are secrets now, longest first."""
    return _known_in(tuple(_learned), tuple(item for item in os.environ.items() if _may_hold_secret(*item)))


@lru_cache(maxsize=4096)
def _may_hold_secret(name: str, value: str) -> bool:
    return _is_secret_name(name) or "://" in value or name == USER


@lru_cache(maxsize=64)
def _known_in(learned: tuple[str, ...], environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    found = dict.fromkeys(learned)
    for name, value in environment:
        named = _is_secret_name(name)
        if named and _worth_hiding(value):
            found[value.strip()] = None
        if named or "://" in value:
            found |= dict.fromkeys(filter(_worth_hiding, _secrets_in(value)))
    login = [dict(environment).get(name, "") for name in (USER, "MLFLOW_TRACKING_PASSWORD")]
    if all(login):
        found[":".join(login)] = None  # which a header has in base64
    return tuple(sorted(found, key=len, reverse=True))


def _is_secret_name(name: str) -> bool:
    return bool(_SECRET_NAME.search(name)) and not _PLAIN_NAME.search(name)


def _worth_hiding(value: str) -> bool:
    value = value.strip()
    if len(value) < SHORTEST or value.lower() in PUBLIC or re.fullmatch(r"\$\{?\w+\}?", value):
        return False
    return len(value) >= 6 or not (value.isalpha() or value.isdigit())


@lru_cache(maxsize=4096)
def _secrets_in(text: str) -> tuple[str, ...]:
    """The secrets in addresses and connection texts: passwords, secret options, paths of webhooks that look random."""
    return tuple(dict.fromkeys(filter(None, _parts_of(text))))


def _parts_of(text: str) -> Iterator[str]:
    whole = [text] if _ADDRESS.match(text) and "\n" not in text else []  # a password may have a space in it
    for address in _ADDRESS.findall(text) + whole:
        _, _, rest = address.partition("://")
        userinfo, at, _ = rest.rpartition("@")
        _, colon, password = userinfo.partition(":")
        if at and colon and not re.match(r"\d{1,5}/", password):
            yield from _with_fragments(password)
        path = re.split(r"[?#]", rest.rpartition("@")[2])[0].partition("/")[2]
        yield from (part for part in path.split("/") if address.lower().startswith("http") and _looks_random(part))
    for pattern in (_SEMICOLON_PAIR, _QUERY, _PAIR):
        for match in pattern.finditer(text):
            value = match[0][len(match["key"]) :].strip().strip("'\"{}")
            yield from _with_fragments(value)


def _with_fragments(secret: str) -> Iterator[str]:
    """A password, decoded too, and the pieces that a parser takes for host or port where it holds / : @ ? or #."""
    from urllib.parse import unquote, unquote_plus  # noqa: PLC0415 - what never prints an address needs no parser

    for form in dict.fromkeys((secret, unquote(secret), unquote_plus(secret))):
        marks = [mark.start() for mark in re.finditer(r"[/:@?#]", form)]
        yield form
        yield from (form[:mark] for mark in marks)
        yield from (form[mark + 1 :] for mark in marks)
        yield from (form[start + 1 : end] for start, end in pairwise(marks))


def _looks_random(part: str) -> bool:
    letters, digits = sum(map(str.isalpha, part)), sum(map(str.isdigit, part))
    return len(part) >= 16 and letters > 0 and digits >= 3 and "." not in part


@lru_cache(maxsize=64)
def _pattern(secrets: tuple[str, ...]) -> "re.Pattern[str]":
    """One pattern for all of them, in each form that a library gives to a text."""
    import base64  # noqa: PLC0415 - as above

    forms = []
    for secret in secrets:
        one = _any_form(secret.strip())
        edge = r"(?<![A-Za-z0-9]){}(?![A-Za-z0-9])" if len(secret) < BOUNDED else "{}"
        forms.append(edge.format(one))
        if len(secret) >= CUT:
            coded = base64.b64encode(secret.encode("utf-8", "surrogateescape")).decode()
            forms.append(re.escape(coded.rstrip("=")) + "={0,2}")
    return re.compile("|".join(forms))


def _any_form(secret: str) -> str:
    parts = re.split(r"(\s+)", secret)
    return "".join(_any_space(part) if part.isspace() else "".join(map(_any_form_of, part)) for part in parts)


def _any_space(part: str) -> str:
    """White space in any form: messages are put into one line before they are shown."""
    return f"(?:{'|'.join([SPACE, *map(_any_form_of, dict.fromkeys(part))])})+"


@lru_cache(maxsize=1024)
def _any_form_of(char: str) -> str:
    """A pattern for one character: as it is, percent-encoded (twice too), or escaped for JSON, Python or HTML."""
    octets = char.encode("utf-8", "surrogateescape")
    percent = "".join(f"%(?:25)?{''.join(map(_any_case, f'{octet:02x}'))}" for octet in octets)
    if char.isascii() and char.isalnum():
        return f"(?:{char}|{percent})"
    forms = [re.escape(char) if char not in "\"'\\" else rf"\\{{0,3}}{re.escape(char)}", percent]
    escapes = (("u", 4), ("x", 2))
    forms += [rf"\\{{1,2}}{letter}{ord(char):0{size}x}" for letter, size in escapes if ord(char) < 16**size]
    return f"(?:{'|'.join([*forms, *ENTITIES.get(char, ())])})"


def _any_case(digit: str) -> str:
    return f"[{digit}{digit.upper()}]" if digit.isalpha() else digit


def _without_cut_off_end(text: str, secrets: Iterable[str]) -> str:
    end = text.rstrip(" .…'\")]}")
    for secret in secrets:
        if len(secret) > CUT and secret[:CUT] in end:
            for size in range(len(secret) - 1, CUT - 1, -1):
                if end.endswith(secret[:size]):
                    return end[:-size] + MASK + text[len(end) :]
    return text
