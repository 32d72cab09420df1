"""Unpacked hosts for tests, made of the blocks of a rule's page.

    tree = HostTree(tmp_path)
    tree.put("/etc/libvirt/qemu.conf", "vnc_tls = 1")
    tree.domains("<domain>...</domain><domain>...</domain>")
    tree.pki("/etc/pki/libvirt-vnc", "days: -3")

Certificates are made anew, with elliptic curves, as these are quick; what a page says of them
("key: RSA 1024") is what they have.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from needs import require

__all__ = ["HOST", "HostTree"]

#: The name that all made-up hosts have.
HOST = "kvm1.example.org"

_HASHES: dict[str, Any] = {"SHA-1": hashes.SHA1, "SHA-256": hashes.SHA256, "MD5": hashes.MD5}


class HostTree:
    """A host's files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.put("/etc/hostname", f"{HOST}\n")
        self.put(
            "/etc/passwd",
            "root:x:0:0::/root:/bin/bash\nqemu:x:107:107::/:/sbin/nologin\n"
            "anna:x:1021:1021::/home/anna:/bin/bash\nben:x:1022:1022::/home/ben:/bin/bash\n",
        )
        self.put("/etc/group", "root:x:0:\nqemu:x:107:\n")

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def put(self, name: str, text: str | bytes, mode: int = 0o600) -> Path:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)
        return path

    def domains(self, text: str) -> None:
        for domain in re.findall(r"<domain.*?</domain>", text, re.DOTALL):
            name = re.findall("<name>(.*?)</name>", domain)[0]
            folder = "/run/libvirt/qemu" if " id=" in domain[:60] else "/etc/libvirt/qemu"
            self.put(f"{folder}/{name}.xml", domain)

    def modes(self, listing: str) -> None:
        """Give files the modes that ``ls -l`` shows, and make those that are not there."""
        _require_root()
        for line in listing.splitlines()[1:]:
            letters, path = line.split()[0], line.split()[-1]
            bits = "".join("0" if letter == "-" else "1" for letter in letters[1:10])
            if not self.path(path).exists():
                self.put(path, "")
            self.path(path).chmod(int(bits, 2))
            os.chown(self.path(path), *(int(word) for word in line.split()[2:4]))

    def pki(self, directory: str, text: str) -> None:
        _require_root()
        facts = dict(line.split(": ", 1) for line in text.splitlines() if line.strip())
        now = dt.datetime.now(dt.timezone.utc)
        authority_key = ec.generate_private_key(ec.SECP256R1())
        authority = _certificate("An authority", None, authority_key, authority_key, {}, now)
        key = _key(facts.get("key", "EC 256"))
        signer, issuer = authority_key, authority
        if facts.get("issuer") == "another authority":
            signer = ec.generate_private_key(ec.SECP256R1())
            issuer = _certificate("An authority", None, signer, signer, {}, now)
        own = _certificate(HOST, issuer, key, signer, facts, now)
        private = _key("EC 256") if facts.get("private key") == "another one" else key
        files = {
            "ca-cert.pem": authority.public_bytes(serialization.Encoding.PEM),
            "server-cert.pem": own.public_bytes(serialization.Encoding.PEM),
            "server-key.pem": _private(private),
        }
        if facts.get("authority key") == "here":
            files["ca-key.pem"] = _private(authority_key)
        for name in facts.get("missing", "").split():
            del files[name]
        for name in facts.get("damaged", "").split():
            files[name] = files[name][: len(files[name]) // 2]
        for name, data in files.items():
            self.put(f"{directory}/{name}", data, 0o644 if "cert" in name else 0o600)


def _require_root() -> None:
    # Keys that are another user's than root's or QEMU's are a finding of their own.
    require(os.geteuid() == 0, "files of root can be made by root alone")


def _key(text):
    kind, bits = text.split()
    if kind == "RSA":
        return rsa.generate_private_key(65537, int(bits))
    return ec.generate_private_key({"256": ec.SECP256R1, "192": ec.SECP192R1}[bits]())


def _private(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _certificate(name, issuer, key, signer, facts, now):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    end = now + dt.timedelta(days=int(facts.get("days", "365")))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - dt.timedelta(days=1))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        names = facts.get("names", f"DNS:{HOST}")
        if names != "none":
            alternatives = [x509.DNSName(one.removeprefix("DNS:")) for one in names.split(", ")]
            builder = builder.add_extension(
                x509.SubjectAlternativeName(alternatives), critical=False
            )
        usage = {
            "server": ExtendedKeyUsageOID.SERVER_AUTH,
            "client": ExtendedKeyUsageOID.CLIENT_AUTH,
        }[facts.get("usage", "server")]
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return builder.sign(signer, _HASHES[facts.get("signature", "SHA-256")]())
