"""TLS on one machine: a demo CA that can vouch for loopback alone, and its servers' certificate.

Between machines use certificates of your own or a public CA's, as ``infra/deploy`` does.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.ports import HOST
from model.errors import ConfigError
from tasks.files import write_atomic
from tasks.trusted_ca import CA_FILE

VALID_DAYS, CA_VALID_DAYS, RENEWAL_DAYS = 365, 3650, 30
LOOPBACK = ("localhost", HOST)

_ANSWER_S = 5.0
_EARLIER = timedelta(hours=1)  # clocks differ


@dataclass(frozen=True)
class Certificate:
    """What a server shows, its private key, and the CA that its clients trust: files in PEM."""

    certificate: Path
    key: Path
    ca: Path


def server_certificate(
    folder: Path, names: tuple[str, ...] = LOOPBACK, valid_days: int = VALID_DAYS
) -> Certificate:
    """Have a certificate for servers of this machine, signed by the CA of the folder.

    The CA is made on the first call. Its certificate limits it to ``names``, so trusting it lets nobody pose as
    another host. Private keys are for their owner alone. A certificate is made anew 30 days before its end.

    Args:
        folder: keeps CA, certificate and keys.
        names: host names and IP addresses.
        valid_days: of a new certificate.

    Returns:
        Its files.

    Raises:
        ConfigError: a file of the folder cannot be read.
        DiskError: it cannot be written.
    """
    own = folder.absolute()  # the servers work in folders of their own
    made = Certificate(own / "server.crt", own / "server.key", own / CA_FILE)
    try:
        if not (folder / "ca.key").exists():
            _make_ca(folder, names)
        if not made.certificate.exists() or days_left(made.certificate) < RENEWAL_DAYS:
            _make_certificate(made, folder / "ca.key", names, valid_days)
    except (OSError, ValueError) as error:
        mend = "remove the folder: the next start makes another CA"
        raise ConfigError(f"the certificates cannot be used: {error}", str(folder), mend) from error
    return made


def days_left(certificate: Path) -> float:
    """Days until a certificate, a file in PEM, ends; negative afterwards."""
    ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    return (ends - datetime.now(UTC)).total_seconds() / 86_400


def presents(port: int, certificate: Certificate) -> bool:
    """Whether the server on a port of loopback shows this very certificate, not one from before its renewal."""
    trust = ssl.create_default_context(cafile=str(certificate.ca))
    try:
        with (
            socket.create_connection((HOST, port), timeout=_ANSWER_S) as line,
            trust.wrap_socket(line, server_hostname=HOST) as secured,
        ):
            shown = secured.getpeercert(binary_form=True)
    except OSError:
        return False
    return shown == ssl.PEM_cert_to_DER_cert(certificate.certificate.read_text())


def _make_ca(folder: Path, names: tuple[str, ...]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cardiofed demo CA of one machine")])
    permitted = [_subtree(_general_name(name)) for name in names]
    builder = _builder(name, name, key.public_key(), CA_VALID_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(x509.NameConstraints(permitted, None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    made = builder.sign(key, hashes.SHA256())
    write_atomic(folder / CA_FILE, made.public_bytes(serialization.Encoding.PEM))
    write_atomic(folder / "ca.key", _secret(key), mode=0o600)  # last: without it everything is made anew
    (folder / "server.crt").unlink(missing_ok=True)


def _make_certificate(made: Certificate, ca_key: Path, names: tuple[str, ...], valid_days: int) -> None:
    ca = x509.load_pem_x509_certificate(made.ca.read_bytes())
    signing = serialization.load_pem_private_key(ca_key.read_bytes(), None)
    if not isinstance(signing, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{ca_key.name} is no key of ours")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cardiofed servers")])
    builder = _builder(name, ca.subject, key.public_key(), valid_days)
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    builder = builder.add_extension(alternatives, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
    signed = builder.add_extension(issuer, critical=False).sign(signing, hashes.SHA256())
    write_atomic(made.key, _secret(key), mode=0o600)
    write_atomic(made.certificate, signed.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, valid_days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    builder = builder.not_valid_before(now - _EARLIER).not_valid_after(now + timedelta(days=valid_days))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _subtree(name: x509.GeneralName) -> x509.GeneralName:
    """The name as a constraint: of addresses the one alone."""
    if isinstance(name, x509.IPAddress):
        return x509.IPAddress(ipaddress.ip_network(f"{name.value}"))
    return name


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _secret(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())
