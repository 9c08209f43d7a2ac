"""The TLS certificate by which a node proves its key.

A self-signed P-256 certificate with the extension of libp2p's TLS handshake (libp2p specs, tls/tls.md, "Peer
Authentication"): the node key's signature over the certificate's public key. Whoever holds the certificate's private
key speaks for the node key named in the extension.

Rules we check: one certificate, signed by its own key, an ECDSA P-256 key (TLS links over TCP: an Ed25519 key), exactly
one such extension, no critical extension that we do not know, an Ed25519 node key that is not of small order, a valid
signature.

Differences from the libp2p specification: only these certificates and only Ed25519 node keys; validity dates are
ignored on both sides (a node with a wrong clock must still work, and the certificate lives no longer than its
process); they are constants, so the certificate does not tell the node's clock.
"""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import NodeKey

__all__ = ["NodeCertificate", "make_certificate", "make_link_certificate", "peer_of_certificate_untrusted"]

# Fixed by the specification
EXTENSION_OID = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
SIGNATURE_PREFIX = b"libp2p-tls-handshake:"
_PUBLIC_KEY_PREFIX = bytes.fromhex("08011220")  # protobuf PublicKey: field 1 KeyType Ed25519 = 1, field 2 of 32 bytes
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SEC 2, section 2.4.2

# Chosen by us
MAX_CERTIFICATE_BYTES = 2048  # ours have about 400
# Half of all ECDSA P-256 signatures in DER have this length, the others mostly a byte more or less. We sign until ours
# has it, so that the first flight of a handshake has one size, in simulations in every run.
_SIGNATURE_BYTES = 71
_NOT_BEFORE = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_NOT_AFTER = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)  # RFC 5280: "no well-defined end"


@dataclass(frozen=True)
class NodeCertificate:
    """A certificate and its private key. `der`: what the other side sees. `repr` shows nothing secret."""

    der: bytes
    pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return f"<NodeCertificate of {len(self.der)} bytes>"


def make_certificate(key: NodeKey, token_bytes: Callable[[int], bytes]) -> NodeCertificate:
    """Return a fresh certificate for this node key; about 0.3 ms."""
    # 48 bytes reduced modulo n - 1: the bias is below 2^-128 (FIPS 186-5, A.2.1, "extra random bits")
    secret = int.from_bytes(token_bytes(48), "big") % (_P256_ORDER - 1) + 1
    private = ec.derive_private_key(secret, ec.SECP256R1())
    builder = _builder(key, private.public_key(), token_bytes)
    certificate = builder.sign(private, hashes.SHA256())
    while len(certificate.signature) != _SIGNATURE_BYTES:
        certificate = builder.sign(private, hashes.SHA256())
    return _node_certificate(certificate, private, NoEncryption())


def make_link_certificate(key: NodeKey, token_bytes: Callable[[int], bytes], password: bytes) -> NodeCertificate:
    """Return a fresh certificate for TLS over TCP: with an Ed25519 key, so that each handshake has the same size.

    `key_pem` is encrypted with `password`, because OpenSSL reads it from a file.
    """
    private = ed25519.Ed25519PrivateKey.from_private_bytes(token_bytes(32))
    certificate = _builder(key, private.public_key(), token_bytes).sign(private, None)
    return _node_certificate(certificate, private, BestAvailableEncryption(password))


def _node_certificate(
    certificate: x509.Certificate,
    private: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
    encryption: KeySerializationEncryption,
) -> NodeCertificate:
    return NodeCertificate(
        der=certificate.public_bytes(Encoding.DER),
        pem=certificate.public_bytes(Encoding.PEM),
        key_pem=private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption),
    )


def _builder(
    key: NodeKey, public: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey, token_bytes: Callable[[int], bytes]
) -> x509.CertificateBuilder:
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signature = key.sign(SIGNATURE_PREFIX + spki)  # libp2p's format; its prefix separates it from all our domains
    value = _signed_key(key.public_raw, signature)
    name = x509.Name([])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(int.from_bytes(token_bytes(8), "big") >> 1 | 1)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.UnrecognizedExtension(EXTENSION_OID, value), critical=False)
    )


def peer_of_certificate_untrusted(der: bytes, *, link: bool = False) -> PeerId:
    """Return the node key that this certificate proves. `link`: one of `make_link_certificate`'s kind is wanted.

    Raise BadPacket: `bad_certificate` (not such a certificate, not signed by itself), `bad_extension` (missing, twice,
    wrong layout), `bad_key`, `bad_signature`. About 0.4 ms.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise BadPacket("bad_certificate")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what a future version refuses is refused now, and no stranger fills stderr
            certificate, public, extensions = _parse_untrusted(der, link)
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
        else:
            public.verify(certificate.signature, certificate.tbs_certificate_bytes)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion, Warning) as exc:
        raise BadPacket("bad_certificate") from exc
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as exc:
        raise BadPacket("bad_extension") from exc
    value: bytes | None = None
    for extension in extensions:
        if extension.oid == EXTENSION_OID and isinstance(extension.value, x509.UnrecognizedExtension):
            value = extension.value.value
        elif extension.critical:
            raise BadPacket("bad_extension")
    if value is None:
        raise BadPacket("bad_extension")
    raw, signature = _read_signed_key_untrusted(value)
    peer = PeerId.from_untrusted(raw)
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if not peer.verify(signature, SIGNATURE_PREFIX + spki):
        raise BadPacket("bad_signature")
    return PeerId(peer.raw)


def _parse_untrusted(
    der: bytes, link: bool
) -> tuple[
    x509.Certificate, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey, list[x509.Extension[x509.ExtensionType]]
]:
    """Return (certificate, its key, its extensions); raises BadPacket and whatever cryptography does."""
    certificate = x509.load_der_x509_certificate(der)
    public = certificate.public_key()
    if link:
        if not isinstance(public, ed25519.Ed25519PublicKey):
            raise BadPacket("bad_certificate")
        return certificate, public, list(certificate.extensions)
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise BadPacket("bad_certificate")
    if not isinstance(certificate.signature_hash_algorithm, hashes.SHA256):
        raise BadPacket("bad_certificate")
    return certificate, public, list(certificate.extensions)


# SignedKey ::= SEQUENCE { publicKey OCTET STRING (36 bytes), signature OCTET STRING (64 bytes) }: always 106 bytes,
# so reading is comparing a fixed frame; DER has only one encoding.
_SEQUENCE = bytes((0x30, 104, 0x04, 36))
_SIGNATURE = bytes((0x04, 64))


def _signed_key(public_raw: bytes, signature: bytes) -> bytes:
    return _SEQUENCE + _PUBLIC_KEY_PREFIX + public_raw + _SIGNATURE + signature


def _read_signed_key_untrusted(value: bytes) -> tuple[bytes, bytes]:
    """Return (public key of 32 bytes, signature of 64). Raise BadPacket("bad_extension")."""
    raw, signature = value[8:40], value[42:]
    if len(value) != 106 or _signed_key(raw, signature) != value:
        raise BadPacket("bad_extension")
    return raw, signature
