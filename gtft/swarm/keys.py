"""Keys: one RSA identity per peer (libp2p's own file), one Ed25519 operator key per swarm.

The identity is all that a peer is: its peer id is the hash of its public key, and the same key signs what
it asks of the DHT and what it reports. Private keys never leave the workspace.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.util
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gtft.artifact import write_file
from gtft.errors import InputError, MissingExtra, translate_os_error

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.padding import PSS
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

IDENTITY = "identity.key"
OPERATOR = "operator.key"
_BITS = (2048, 4096)
# libp2p's protobuf of a key: field 1 (type) = 0 for RSA, then field 2 (bytes) with its length.
_RSA_FIELD = b"\x08\x00\x12"
# Multihash: sha2-256, 32 bytes.
_SHA256 = b"\x12\x20"


@dataclass(frozen=True)
class Identity:
    """A peer's identity. ``public_key`` is one OpenSSH line without a comment."""

    peer_id: str
    public_key: str
    _key: RSAPrivateKey = field(repr=False, compare=False)

    def sign(self, data: bytes) -> str:
        """RSA-PSS over SHA-256, as base64: what Hivemind's own keys make."""
        from cryptography.hazmat.primitives import hashes

        return base64.b64encode(self._key.sign(data, _pss(), hashes.SHA256())).decode()


@dataclass(frozen=True)
class Operator:
    """Who decides about a swarm. ``public_key`` is 64 hex digits."""

    public_key: str
    _key: Ed25519PrivateKey = field(repr=False, compare=False)

    def sign(self, data: bytes) -> str:
        """The Ed25519 signature, 128 hex digits."""
        return self._key.sign(data).hex()


def require_swarm_extra(
    platform: str = sys.platform, find: Callable[[str], object] = importlib.util.find_spec
) -> None:
    """Raises MissingExtra where Hivemind is not, or cannot be, installed. Imports nothing."""
    if platform == "win32":
        raise MissingExtra(
            "a swarm does not run on Windows",
            why="Hivemind has no build for it",
            fix='use WSL or another machine; engine = "local" works here',
        )
    if find("hivemind") is None:
        raise MissingExtra(
            "training with peers needs Hivemind, which is not installed",
            why="it is an optional part of gtft",
            fix="pip install --only-binary hivemind 'gtft[swarm]'",
        )


def ensure_identity(folder: Path) -> Identity:
    """This workspace's identity, made once (0400). Raises as `read_identity`."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    path = folder / IDENTITY
    if not path.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS[0])
        der = key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        _write_once(path, _RSA_FIELD + _varint(len(der)) + der, 0o400)
    return read_identity(path)


def read_identity_der(path: Path) -> bytes:
    """The private key itself (DER), for Hivemind. Raises InputError as `read_identity`."""
    try:
        return _unwrap(_read_secret(path, "gtft swarm id"))
    except ValueError as e:
        raise _damaged(path, str(e)) from e


def read_identity(path: Path) -> Identity:
    """Raises InputError when it is missing, damaged or readable by others."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    try:
        key = serialization.load_der_private_key(read_identity_der(path), password=None)
    except (ValueError, TypeError) as e:
        raise _damaged(path, str(e)) from e
    if not isinstance(key, RSAPrivateKey):
        raise _damaged(path, "it holds no RSA key")
    public = write_public(key.public_key())
    return Identity(find_peer_id(public), public, key)


def make_operator(path: Path) -> Operator:
    """A new operator key (0600). Raises InputError when there is one already."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    if not _write_once(path, pem, 0o600):
        raise InputError(
            f"there is an operator key at {path} already",
            why="a swarm has one operator; its key is never replaced",
            fix="gtft swarm status",
        )
    return read_operator(path)


def read_operator(path: Path) -> Operator:
    """Raises InputError when it is missing (this workspace is not the swarm's operator) or unsafe."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not path.exists():
        raise InputError(
            f"this workspace is not the operator of {path.parent.name}",
            why="the key that signs its member file is where it was created",
            fix="ask whoever created the swarm",
        )
    try:
        key = serialization.load_pem_private_key(_read_secret(path, ""), password=None)
    except (ValueError, TypeError) as e:
        raise _damaged(path, str(e)) from e
    if not isinstance(key, Ed25519PrivateKey):
        raise _damaged(path, "it holds no Ed25519 key")
    return Operator(key.public_key().public_bytes_raw().hex(), key)


def is_signed_by_operator(public_key: str, data: bytes, signature: str) -> bool:
    """``public_key`` and ``signature`` in hex, in their one spelling."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key, mark = bytes.fromhex(public_key), bytes.fromhex(signature)
        if key.hex() != public_key or mark.hex() != signature:
            return False
        Ed25519PublicKey.from_public_bytes(key).verify(mark, data)
    except (ValueError, InvalidSignature):
        return False
    return True


def is_signed_by_peer(public_key: str, data: bytes, signature: str) -> bool:
    """Whether a peer's identity signed ``data``."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes

    try:
        mark = base64.b64decode(signature, validate=True)
        read_public(public_key).verify(mark, data, _pss(), hashes.SHA256())
    except (ValueError, binascii.Error, InvalidSignature):
        return False
    return True


def find_peer_id(public_key: str) -> str:
    """The libp2p peer id of an OpenSSH public key. Raises ValueError for anything else than plain RSA."""
    import base58
    from cryptography.hazmat.primitives import serialization

    der = read_public(public_key).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashlib.sha256(_RSA_FIELD + _varint(len(der)) + der).digest()
    return base58.b58encode(_SHA256 + digest).decode()


def read_public(public_key: str) -> RSAPublicKey:
    """Raises ValueError unless it is an RSA key of 2048 to 4096 bits in its one spelling."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    try:
        key = serialization.load_ssh_public_key(public_key.encode())
    except UnsupportedAlgorithm as e:
        raise ValueError(str(e)) from e
    if not isinstance(key, RSAPublicKey) or not _BITS[0] <= key.key_size <= _BITS[1]:
        raise ValueError("not an RSA key of 2048 to 4096 bits")
    if write_public(key) != public_key:
        raise ValueError("the key is not in its one spelling")
    return key


def write_public(key: RSAPublicKey) -> str:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    ).decode()


def _pss() -> PSS:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    return padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.MAX_LENGTH)


def _read_secret(path: Path, fix: str) -> bytes:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        data = path.read_bytes()
    except FileNotFoundError as e:
        raise InputError(f"there is no key at {path}", fix=fix or "gtft swarm create") from e
    except OSError as e:
        raise translate_os_error(e, "reading a key") from e
    if mode & 0o077:
        raise InputError(
            f"the key {path} can be read by others",
            why=f"its permissions are {mode:04o}; whoever reads it can act as this peer",
            fix=f"chmod 600 {path}; if somebody may have read it, delete it and be invited anew",
        )
    return data


def _write_once(path: Path, data: bytes, mode: int) -> bool:
    """Write a file that must not exist yet, whole or not at all; False when another was first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
    except OSError as e:
        raise translate_os_error(e, "making a key") from e
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    write_file(aside, data, mode=mode)
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    except OSError as e:
        raise translate_os_error(e, "making a key") from e
    finally:
        aside.unlink(missing_ok=True)
    return True


def _unwrap(data: bytes) -> bytes:
    for size in (1, 2, 3):
        head = len(_RSA_FIELD) + size
        if (
            data.startswith(_RSA_FIELD)
            and _varint(len(data) - head) == data[len(_RSA_FIELD) : head]
        ):
            return data[head:]
    raise ValueError("it is not a libp2p RSA key")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _damaged(path: Path, why: str) -> InputError:
    return InputError(
        f"the key {path} cannot be used",
        why=why,
        fix=f"restore it from a backup, or delete {path} and be invited anew: gtft swarm id",
    )
