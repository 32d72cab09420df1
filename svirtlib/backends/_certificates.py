"""Certificates and keys of a TLS service, read with ``cryptography`` (extra ``audit``)."""

from __future__ import annotations

import datetime as dt
import warnings
from typing import TYPE_CHECKING, Any, Optional

from attr import frozen

from svirtlib.backends._tree import Tree
from svirtlib.guests import Unreadable
from svirtlib.hostconfig import Certificate, CertificateStore

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["LIBVIRT", "QEMU", "StoreFiles", "read_store"]

_BEGIN = b"-----BEGIN CERTIFICATE-----"
_END = b"-----END CERTIFICATE-----"
#: More certificates than this in one file are no bundle of a service's authorities.
_MOST = 500


@frozen
class StoreFiles:
    """Where a service has its files, below its directory or as absolute paths."""

    authority: str
    certificate: str
    key: str
    authority_keys: tuple[str, ...]


#: Of QEMU's services (``tls-creds-x509``), and of SPICE.
QEMU = StoreFiles("ca-cert.pem", "server-cert.pem", "server-key.pem", ("ca-key.pem", "cakey.pem"))
#: Of libvirt's own daemons.
LIBVIRT = StoreFiles(
    "/etc/pki/CA/cacert.pem",
    "/etc/pki/libvirt/servercert.pem",
    "/etc/pki/libvirt/private/serverkey.pem",
    ("/etc/pki/CA/private/cakey.pem", "/etc/pki/CA/cakey.pem", "/etc/pki/libvirt/cakey.pem"),
)


def read_store(tree: Tree, service: str, directory: str, files: StoreFiles) -> CertificateStore:
    """Return the certificates of a service. A key is looked at and forgotten.

    Without ``cryptography`` only what is missing is told, and that the rest is unknown.
    """
    paths = {
        name: path if path.startswith("/") else f"{directory}/{path}"
        for name, path in (
            ("authority", files.authority),
            ("certificate", files.certificate),
            ("key", files.key),
        )
    }
    contents = {name: tree.read(path) for name, path in paths.items()}
    missing = tuple(paths[name] for name, data in contents.items() if data is None)
    beside = [
        path if path.startswith("/") else f"{directory}/{path}" for path in files.authority_keys
    ]
    stray = next((path for path in beside if tree.exists(path)), None)
    broken: list[tuple[str, str]] = []
    loaded: dict[str, list[x509.Certificate]] = {"authority": [], "certificate": []}
    try:
        for name in ("authority", "certificate"):
            data = contents[name]
            if isinstance(data, bytes):
                try:
                    loaded[name] = _load(data)
                except ValueError as error:
                    broken.append((paths[name], str(error)))
    except ImportError:
        tree.unreadable[directory] = Unreadable(
            f"certificates in {directory}",
            "the Python library cryptography is missing (Debian: python3-cryptography, or the "
            "extra 'audit')",
        )
        return CertificateStore(service, directory, missing, authority_key=stray)
    authorities, own = loaded["authority"], loaded["certificate"]
    matches: Optional[bool] = None
    key = contents["key"]
    if own and isinstance(key, bytes):
        try:
            matches = _matches(own[0], key)
        except ValueError as error:
            broken.append((paths["key"], str(error)))
    try:
        return CertificateStore(
            service=service,
            directory=directory,
            missing=missing,
            broken=tuple(broken),
            authorities=tuple(_facts(one, paths["authority"]) for one in authorities),
            certificate=_facts(own[0], paths["certificate"]) if own else None,
            key_matches=matches,
            # Certificates of intermediate authorities may follow the server's in its file.
            issued=_issued(own, authorities) if own and authorities else None,
            authority_key=stray,
        )
    except ValueError as error:
        # An extension that is damaged shows only when it is looked at.
        broken.append((paths["certificate"], f"it is damaged: {error}"))
        return CertificateStore(service, directory, missing, tuple(broken), authority_key=stray)


def _load(data: bytes) -> list[x509.Certificate]:
    from cryptography import x509

    found = []
    for block in data.split(_BEGIN)[1 : _MOST + 1]:
        if _END not in block:
            raise ValueError("a certificate in it has no end; the file may be half written")
        with warnings.catch_warnings():
            # What is odd in it is for the rules to tell.
            warnings.simplefilter("ignore")
            try:
                found.append(x509.load_pem_x509_certificate(_BEGIN + block))
            except ValueError:
                raise ValueError("it holds a certificate that is damaged") from None
    if not found:
        raise ValueError("it holds no certificate in PEM form")
    return found


def _matches(certificate: x509.Certificate, key: bytes) -> Optional[bool]:
    """Tell whether a key is that of a certificate; None where it is encrypted."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )

    try:
        private = load_pem_private_key(key, None)
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return bool(
            private.public_key().public_bytes(*form) == certificate.public_key().public_bytes(*form)
        )
    except TypeError:
        # It needs a password, which libvirt has as a secret.
        return None
    except UnsupportedAlgorithm:
        return None
    except ValueError:
        if b"ENCRYPTED" in key:
            return None
        raise ValueError("it holds no private key in PEM form") from None


def _issued(chain: list[x509.Certificate], authorities: list[x509.Certificate]) -> Optional[bool]:
    """Tell whether a chain of signatures leads to an authority; None where that is not known."""
    current = chain[0]
    pool = [*authorities, *chain[1:]]
    unknown = False
    for _ in range(len(pool) + 1):
        issuer = None
        for candidate in pool:
            if candidate.subject != current.issuer:
                continue
            signed = _signed(current, candidate)
            unknown = unknown or signed is None
            if signed:
                issuer = candidate
                break
        if issuer is None:
            return None if unknown else False
        if issuer in authorities:
            return True
        current = issuer
    return False


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> Optional[bool]:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
    from cryptography.x509.oid import SignatureAlgorithmOID

    key = issuer.public_key()
    content, signature = certificate.tbs_certificate_bytes, certificate.signature
    try:
        digest = certificate.signature_hash_algorithm
        if isinstance(key, rsa.RSAPublicKey) and digest is not None:
            if certificate.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS:
                return None
            key.verify(signature, content, padding.PKCS1v15(), digest)
        elif isinstance(key, ec.EllipticCurvePublicKey) and digest is not None:
            key.verify(signature, content, ec.ECDSA(digest))
        elif isinstance(key, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)):
            key.verify(signature, content)
        else:
            return None
    except InvalidSignature:
        return False
    except UnsupportedAlgorithm:
        return None
    return True


def _utc(certificate: Any, name: str) -> dt.datetime:
    """Return a date with its zone: older versions of the library leave that to the reader."""
    aware = getattr(certificate, f"{name}_utc", None)
    if aware is None:
        aware = getattr(certificate, name).replace(tzinfo=dt.timezone.utc)
    assert isinstance(aware, dt.datetime)  # noqa: S101 - narrows the type
    return aware


def _facts(certificate: x509.Certificate, path: str) -> Certificate:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    try:
        digest = certificate.signature_hash_algorithm
        digest_name: Optional[str] = None if digest is None else digest.name
    except UnsupportedAlgorithm:
        digest_name = "unknown"
    key = certificate.public_key()
    names: list[str] = []
    authority: Optional[bool] = None
    server = True
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            names += [str(name) for name in value.get_values_for_type(x509.DNSName)]
            names += [str(address) for address in value.get_values_for_type(x509.IPAddress)]
        elif isinstance(value, x509.BasicConstraints):
            authority = value.ca
        elif isinstance(value, x509.ExtendedKeyUsage):
            usages = set(value)
            server = bool(
                usages
                & {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
            )
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Certificate(
        path=path,
        subject=certificate.subject.rfc4514_string(),
        not_before=_utc(certificate, "not_valid_before"),
        not_after=_utc(certificate, "not_valid_after"),
        key=_key_name(key),
        bits=int(getattr(key, "key_size", 256)),
        digest=digest_name,
        authority=authority,
        server=server,
        names=tuple(names),
        common_name=str(common[0].value) if common else None,
        self_signed=certificate.issuer == certificate.subject,
    )


def _key_name(key: object) -> str:
    name = type(key).__name__.lstrip("_")
    for known in ("RSA", "DSA", "Ed25519", "Ed448"):
        if name.startswith(known):
            return known
    return "EC" if "Elliptic" in name else name
