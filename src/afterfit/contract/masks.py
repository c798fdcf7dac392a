"""How the categories of private columns stand in a contract: as keyed hashes, never as they are.

The key comes from the secret of the environment where there is one. Who has a version and not the secret can then try
no values out. Without a secret the key is the use case's name, and a hash can be tried out by who has the version.
"""

import hashlib
from collections.abc import Hashable, Iterable
from functools import lru_cache
from typing import Any

from afterfit.contract.categories import CategoryCodes, meaning, meanings, whole_number
from afterfit.errors import SettingsError
from afterfit.settings import SALT, secret

OPEN, KEYED = "open", "keyed"


class MaskedCodes(dict[str, int]):
    """The codes of a private column's categories, by their hashes; they are asked for by the categories themselves.

    Args:
        codes: the code of each hash.
        mask: the column's mask (`mask_of`).
        column: its name.
    """

    def __init__(self, codes: dict[str, int], mask: str, column: str) -> None:
        super().__init__(codes)
        self._key, self._column = key_of(mask), column

    def __contains__(self, text: object) -> bool:
        return super().__contains__(masked(str(text), self._key, self._column))

    def __getitem__(self, text: str) -> int:
        return super().__getitem__(masked(text, self._key, self._column))

    def get(self, text: str, default: Any = None) -> Any:
        """The code of a category, or the default."""
        return super().get(masked(text, self._key, self._column), default)


class MaskedCategories(CategoryCodes):
    """The codes of a private column's categories: the same as those of the plain ones, by hashes.

    Args:
        categories: their hashes.
        mask: the column's mask (`mask_of`).
        column: its name.
        aliases: as `aliases_of` gives them.
    """

    def __init__(self, categories: Iterable[str], mask: str, column: str, aliases: Iterable[str]) -> None:
        super().__init__(categories)
        places, self._key, self._column = dict(self.code_of), key_of(mask), column
        self.code_of = MaskedCodes(places, mask, column)
        named = (pair.split("=", 1) for pair in aliases)
        self._aliases = {alias: places[category] for alias, category in named if category in places}

    def code_of_text(self, value: Any, text: str) -> int:
        """The code of a value that is not missing, with its text as `read_category` gives it."""
        code = self.code_of.get(text)
        if code is None and whole_number(text) is not None:
            code = self._aliases.get(_alias(("whole", whole_number(text)), self._key, self._column))
        if code is None and not isinstance(value, str | bytes | bytearray):
            code = self._aliases.get(_alias(meaning(value, text), self._key, self._column))
        return len(self) if code is None else code


def aliases_of(texts: Iterable[str], key: bytes, column: str) -> tuple[str, ...]:
    """For what categories stand for besides their texts, "hash=hash of the category"; what two share is left out."""
    pairs = [(stands_for, text) for text in texts for stands_for in meanings(text)]
    whole = {text: whole_number(text) for text in texts}
    if None not in whole.values():
        pairs += [(("whole", number), text) for text, number in whole.items()]
    by_alias: dict[str, set[str]] = {}
    for stands_for, text in pairs:
        by_alias.setdefault(_alias(stands_for, key, column), set()).add(masked(text, key, column))
    return tuple(sorted(f"{alias}={min(found)}" for alias, found in by_alias.items() if len(found) == 1))


def mask_of(use_case: str) -> str:
    """By what the categories of a use case's private columns are hashed from now on, as a contract keeps it."""
    text = secret(SALT)
    return f"{OPEN}:{use_case}" if text is None else f"{KEYED}:{_check(text, use_case)}:{use_case}"


def key_of(mask: str) -> bytes:
    """The key of a mask.

    Raises:
        SettingsError: it was made by a secret that the environment does not have.
    """
    return _key_of(mask, secret(SALT))


def masked(text: str, key: bytes, column: str) -> str:
    """A category's hash: 16 hex digits, others in each column."""
    content = f"{column}\0{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, key=key, digest_size=8).hexdigest()


def _alias(stands_for: Hashable, key: bytes, column: str) -> str:
    if isinstance(stands_for, tuple) and stands_for[0] == "number":
        stands_for = ("number", stands_for[1] + 0.0)  # -0.0 is 0.0
    return masked(repr(stands_for), key, f"{column}\0stands for")


@lru_cache(64)
def _key_of(mask: str, text: str | None) -> bytes:
    kind, _, rest = mask.partition(":")
    if kind == OPEN:
        return hashlib.blake2b(rest.encode(), digest_size=32, person=b"afterfit open").digest()
    check, _, use_case = rest.partition(":")
    if text is None or _check(text, use_case) != check:
        came = "is not set" if text is None else "is another one"
        raise SettingsError(
            f"This version of {use_case} knows the categories of private columns by the secret in {SALT}, which "
            f"{came} here. Set the secret that it was trained with."
        )
    return _derived(text, use_case, b"afterfit mask")


def _check(text: str, use_case: str) -> str:
    """What tells a secret from others, and tells nothing else of it."""
    return _derived(text, use_case, b"afterfit check")[:8].hex()


def _derived(text: str, use_case: str, purpose: bytes) -> bytes:
    key = hashlib.sha512(text.encode("utf-8", "surrogatepass")).digest()
    return hashlib.blake2b(use_case.encode(), key=key, digest_size=32, person=purpose).digest()
