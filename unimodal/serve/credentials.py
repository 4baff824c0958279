"""Content Credentials (C2PA 2): a PNG file with a signed statement of what it comes from.

In: a PNG file. Out: the same image with a manifest in its chunk caBX, which says that a trained
algorithm made it, and which model. The signature is of the certificate that the server was given;
nothing is asked of a network, so there is no timestamp of an authority.
"""

import io
from pathlib import Path
from typing import Any

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from PIL import Image

# IPTC's vocabulary of digital source types, which C2PA takes its own from.
MADE_BY_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
# A preview beside a drawing of 64 pixels would be larger than the drawing.
SETTINGS = {"builder": {"thumbnail": {"enabled": False}}}


class ContentCredentials:
    """ContentCredentials sign what models draw."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read a chain of certificates, the signer's first, and the signer's private key, both PEM.

        Raise ValueError where they are none, do not belong together, or C2PA does not take them.
        """
        chain, private = certificate.read_bytes(), _private_key(key)
        _check_pair(chain, private, certificate, key)
        pkcs8 = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            self._context = c2pa.Context(c2pa.Settings.from_dict(SETTINGS))
            given = c2pa.C2paSignerInfo(_algorithm(private, key), chain, pkcs8, None)
            self._signer = c2pa.Signer.from_info(given)
            self._try()
        except c2pa.C2paError as error:
            raise ValueError(
                f"C2PA does not take the certificate {certificate}: {error}; it wants one for"
                " signing, in time, issued by another (C2PA 2.2, 14.5)"
            ) from error

    def signed(self, png: bytes, name: str, model_hash: str) -> bytes:
        """Return a PNG file, which the model of that name and hash drew, with its manifest."""
        stream = io.BytesIO()
        with c2pa.Builder(_manifest(name, model_hash), self._context) as builder:
            builder.sign(self._signer, "image/png", io.BytesIO(png), stream)
        return stream.getvalue()

    def _try(self) -> None:
        """Sign and read an image; raise C2paError where the result is not valid."""
        stream = io.BytesIO()
        Image.new("RGB", (8, 8)).save(stream, "PNG")
        signed = self.signed(stream.getvalue(), "a try", "")
        with c2pa.Reader("image/png", io.BytesIO(signed)) as reader:
            if (found := reader.get_validation_state()) not in ("Valid", "Trusted"):
                raise c2pa.C2paError(f"what it signs is {found}")


def _manifest(name: str, model_hash: str) -> dict[str, Any]:
    """Return what is said of an image."""
    created = {
        "action": "c2pa.created",
        "digitalSourceType": MADE_BY_MODEL,
        "softwareAgent": {"name": name, "version": model_hash},
    }
    return {
        "claim_generator_info": [{"name": "unimodal"}],
        "format": "image/png",
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }


def _private_key(file: Path) -> Any:
    try:
        return load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError) as error:  # the latter: it is encrypted
        raise ValueError(f"{file} holds no private key in PEM without a password") from error


def _algorithm(private: Any, file: Path) -> str:
    """Return C2PA's name of the signature that a key makes (C2PA 2.2, 13.2)."""
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in CURVES:
        return CURVES[private.curve.name]
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise ValueError(f"{file}: C2PA takes keys of P-256, P-384, P-521, Ed25519 and RSA")


def _check_pair(chain: bytes, private: Any, certificate: Path, key: Path) -> None:
    """Raise ValueError where the chain's first certificate is not that of the key."""
    try:
        first = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise ValueError(f"{certificate} holds no certificate in PEM") from error

    def raw(public: Any) -> bytes:
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    if raw(first.public_key()) != raw(private.public_key()):
        raise ValueError(
            f"the first certificate of {certificate} is not that of the key {key}: the signer's"
            " comes first, those who issued it behind"
        )
