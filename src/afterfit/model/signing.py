"""Signatures of versions: a key that is kept outside the registry says which versions may be loaded.

Ed25519, so that a server can check a signature with a key that cannot make one. Without any key in the environment
nothing is signed and nothing is asked for.
"""

import base64
import binascii
import re
from typing import TYPE_CHECKING

from afterfit.errors import BundleError, SettingsError
from afterfit.settings import secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGN, VERIFY = "AFTERFIT_SIGNING_KEY", "AFTERFIT_VERIFY_KEYS"
"""The environment variables with the private key, and with the public keys of which one must have signed."""
CONTEXT = b"afterfit version 1\n"
"""Stands before what is signed, so that no signature of something else is one of a version."""
KEY_BYTES = 32


def new_keys() -> str:
    """A new private key and its public key, as two lines that set the environment variables."""
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - only who signs or verifies needs it

    key = ed25519.Ed25519PrivateKey.generate()
    private = base64.b64encode(key.private_bytes_raw()).decode()
    return f"{SIGN}={private}\n{VERIFY}={_text_of(key.public_key())}"


def signed(content: bytes) -> str | None:
    """The signature of a version's list of files, as base64; None where there is no key to sign with.

    Raises:
        SettingsError: a key cannot be read, or this process would refuse what it signs.
    """
    key = _private_key()
    if key is None:
        return None
    if _text_of(key.public_key()) not in map(_text_of, _public_keys()):
        raise SettingsError(f"{VERIFY} lacks the public key of {SIGN}: what is signed here would be refused here.")
    return base64.b64encode(key.sign(CONTEXT + content)).decode()


def check_signature(what: str, content: bytes | None, signature: str | None) -> None:
    """Refuse a version that none of the known keys has signed; without a known key every version passes.

    Args:
        what: the version in words, for the error.
        content: its list of files; None for a version without one.
        signature: as `signed` gave it; None for a version without one.

    Raises:
        BundleError: it is not signed, or by another key, or what was signed is something else.
        SettingsError: a key cannot be read.
    """
    keys = _public_keys()
    if not keys:
        return
    if content is None or signature is None:
        raise BundleError(
            f"{what} is not signed, and {VERIFY if secret(VERIFY) else SIGN} asks for a signature. "
            f"Train it again where {SIGN} is set."
        )
    if not any(_fits(key, content, signature) for key in keys):
        raise BundleError(
            f"{what} has a signature that none of the {len(keys)} key(s) in {VERIFY} made for it. "
            f"Find out who registered it, or add the key that signed it."
        )


def asks_for_signatures() -> bool:
    """Whether a key in the environment asks versions for a signature."""
    return bool(_public_keys())


def _fits(key: "Ed25519PublicKey", content: bytes, signature: str) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - as above

    try:
        key.verify(base64.b64decode(signature, validate=True), CONTEXT + content)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _private_key() -> "Ed25519PrivateKey | None":
    text = secret(SIGN)
    if text is None:
        return None
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - as above

    return ed25519.Ed25519PrivateKey.from_private_bytes(_bytes_of(text, SIGN))


def _public_keys() -> "list[Ed25519PublicKey]":
    """Those in the environment; where only the key to sign with is there, its own."""
    text = secret(VERIFY)
    if text is None:
        key = _private_key()
        return [] if key is None else [key.public_key()]
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - as above

    return [ed25519.Ed25519PublicKey.from_public_bytes(_bytes_of(part, VERIFY)) for part in re.split(r"[\s,]+", text)]


def _text_of(key: "Ed25519PublicKey") -> str:
    return base64.b64encode(key.public_bytes_raw()).decode()


def _bytes_of(text: str, variable: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(
            f"{variable} must hold a key of {KEY_BYTES} bytes as base64; make a pair with: "
            'python -c "from afterfit.model.signing import new_keys; print(new_keys())"'
        )
    return key
