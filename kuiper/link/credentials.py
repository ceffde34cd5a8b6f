"""Who is who in a run: one certificate per process, signed by a key that is forgotten at once.

Only processes that hold a certificate of the run's own authority can connect, both ends show
theirs (TLS 1.3), and the name of a sender is read from its certificate, never from what it says.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kuiper.errors import HostError, ProtocolError

CA, CERTIFICATE, KEY = "ca.pem", "cert.pem", "key.pem"
CLOCK_SKEW = datetime.timedelta(days=1)
"""How far the clock of a host may be off; certificates are valid for this much longer at both ends."""


def issue(run_id: str, names: Sequence[str], lifetime_seconds: float) -> dict[str, dict[str, bytes]]:
    """Make the certificates of a run.

    The authority's key never leaves this function, so nobody can add a process to the run later.

    Args:
        run_id: of the run; stands in every certificate.
        names: of the processes.
        lifetime_seconds: from now on; a host whose clock is wrong may give or take a day.

    Returns:
        For each name the contents of ca.pem, cert.pem and key.pem (PEM, EC P-256). The key is to
        be written with mode 0600.
    """
    now = datetime.datetime.now(datetime.UTC)
    valid = (now - CLOCK_SKEW, now + datetime.timedelta(seconds=lifetime_seconds) + CLOCK_SKEW)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "kuiper run")])
    authority = (
        _builder(authority_name, authority_name, authority_key, authority_key, valid)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    ca_pem = authority.public_bytes(serialization.Encoding.PEM)
    both_ends = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    issued = {}
    for name in names:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "kuiper process")])
        uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_uri(run_id, name))])
        certificate = (
            _builder(subject, authority_name, key, authority_key, valid)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(certificates=False), critical=True)
            .add_extension(both_ends, critical=False)
            .add_extension(uri, critical=True)
            .sign(authority_key, hashes.SHA256())
        )
        issued[name] = {
            CA: ca_pem,
            CERTIFICATE: certificate.public_bytes(serialization.Encoding.PEM),
            KEY: key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        }
    return issued


def server_context(folder: Path) -> ssl.SSLContext:
    """TLS 1.3 for the end that listens; `folder` holds ca.pem, cert.pem and key.pem.

    Raises:
        HostError: a file is missing or does not belong to the others.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, folder)
    context.num_tickets = 0  # nobody resumes, and nothing is ever written on a stream one only reads
    return context


def client_context(folder: Path) -> ssl.SSLContext:
    """TLS 1.3 for the end that dials; as `server_context`."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, folder)


def identity(connection: ssl.SSLSocket, run_id: str) -> str:
    """The name of the process at the other end, from its certificate.

    Raises:
        ProtocolError: the certificate is not one that `issue` made for this run.
    """
    certificate = connection.getpeercert() or {}
    prefix = _uri(run_id, "")
    uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1 or not uris[0].startswith(prefix):
        raise ProtocolError(f"a certificate names {uris}, expected one name that begins with {prefix}")
    return unquote(uris[0].removeprefix(prefix))


def _uri(run_id: str, name: str) -> str:
    return f"kuiper:{quote(run_id, safe='')}/{quote(name, safe='')}"


def _context(protocol: int, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # processes are known by their certificate's name, hosts by nothing
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(Path(folder) / CA)
        context.load_cert_chain(Path(folder) / CERTIFICATE, Path(folder) / KEY)
    except OSError as error:
        raise HostError(
            f"the certificates in {folder} cannot be used: {error}", "submit again; each run makes its own"
        ) from error
    return context


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    valid: tuple[datetime.datetime, datetime.datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )


def _key_usage(certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
