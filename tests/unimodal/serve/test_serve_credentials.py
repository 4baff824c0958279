"""Content Credentials, read back with C2PA's own library: what they say, and that they hold."""

import base64
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
pytest.importorskip("c2pa", reason="the extra `c2pa` is not installed")
pytest.importorskip("cryptography", reason="the extra `c2pa` is not installed")

import c2pa
from api_server import IMAGES, pixels, png, serving
from PIL import Image

from unimodal.model import Model
from unimodal.serve.credentials import MADE_BY_MODEL, ContentCredentials

LEAF = """
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=emailProtection
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""
ALGORITHMS = {
    "Es256": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "Es384": ["EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "Ps256": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "Ed25519": ["ED25519"],
}


class Authority:
    """A certificate authority of a test, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "leaf.ext").write_text(LEAF)
        self.new_key("root", "Es256")
        self.run("req -x509 -new -key root.key -days 2 -subj /O=Tests/CN=Root -out root.crt"
                 " -addext keyUsage=critical,keyCertSign")  # fmt: skip

    def run(self, words: str) -> None:
        subprocess.run(["openssl", *words.split()], cwd=self.folder, check=True,
                       capture_output=True)  # fmt: skip

    def new_key(self, name: str, algorithm: str) -> Path:
        """A private key."""
        self.run(f"genpkey -algorithm {' '.join(ALGORITHMS[algorithm])} -out {name}.key")
        return self.folder / f"{name}.key"

    def signer(self, name: str, algorithm: str = "Es256") -> tuple[Path, Path]:
        """A signer's chain of certificates, and its key."""
        key = self.new_key(name, algorithm)
        self.run(f"req -new -key {name}.key -subj /O=Tests/CN={name} -out {name}.csr")
        self.run(f"x509 -req -in {name}.csr -CA root.crt -CAkey root.key -CAcreateserial -days 2"
                 f" -extfile leaf.ext -out {name}.crt")  # fmt: skip
        chain = self.folder / f"{name}.pem"
        parts = [self.folder / f"{name}.crt", self.folder / "root.crt"]
        chain.write_bytes(b"".join(part.read_bytes() for part in parts))
        return chain, key


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("the program openssl is not installed")
    return Authority(tmp_path_factory.mktemp("authority"))


def read(content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The active manifest of a PNG file, and all that the reader says."""
    with c2pa.Reader("image/png", io.BytesIO(content)) as reader:
        said = json.loads(reader.json())
    return said["manifests"][said["active_manifest"]], said


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_manifest_says_that_a_model_made_the_image(authority: Authority, algorithm: str) -> None:
    signer = ContentCredentials(*authority.signer("signer", algorithm))
    content = signer.signed(png(), "mine", "f00d")
    manifest, said = read(content)
    (actions,) = manifest["assertions"]
    assert actions["data"]["actions"] == [{
        "action": "c2pa.created", "digitalSourceType": MADE_BY_MODEL,
        "softwareAgent": {"name": "mine", "version": "f00d"},
    }]  # fmt: skip
    assert MADE_BY_MODEL.endswith("/trainedAlgorithmicMedia")
    assert said["validation_state"] == "Valid"
    signature = manifest["signature_info"]
    assert (signature["alg"], signature["common_name"]) == (algorithm, "signer")
    assert "time" not in signature, "no authority of timestamps was asked"
    assert manifest["claim_generator_info"][0]["name"] == "unimodal"
    assert np.array_equal(*(np.asarray(Image.open(io.BytesIO(x))) for x in (content, png())))


def test_a_file_that_was_changed_is_found_out(authority: Authority) -> None:
    content = ContentCredentials(*authority.signer("signer")).signed(png(), "mine", "f00d")
    at = content.index(b"IDAT") + 20
    changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    assert read(content)[1]["validation_state"] == "Valid"
    failures = read(changed)[1]["validation_results"]["activeManifest"]["failure"]
    assert "assertion.dataHash.mismatch" in [one["code"] for one in failures]


def test_a_server_signs_what_it_draws(authority: Authority, tiny_model: Model) -> None:
    asked = {"prompt": "draw a red circle", "seed": 1}
    signer = ContentCredentials(*authority.signer("signer"))
    with serving(tiny_model) as found:
        (plain,) = found.ask(IMAGES, asked)[1]["data"]
    with serving(tiny_model, credentials=signer) as found:
        (signed,) = found.ask(IMAGES, asked)[1]["data"]
        stream = {"stream": True, "partial_images": 1}
        _, _, events = found.send("POST", IMAGES, json.dumps(asked | stream).encode(),
                                  Content_Type="application/json")  # fmt: skip
    told = [json.loads(line[5:]) for line in events.decode().splitlines() if line[:5] == "data:"]
    assert len(told) == 2
    for one in (signed, *told):
        manifest, said = read(base64.b64decode(one["b64_json"]))
        agent = manifest["assertions"][0]["data"]["actions"][0]["softwareAgent"]
        assert agent == {"name": "tiny", "version": tiny_model.hash}
        assert said["validation_state"] == "Valid"
    assert np.array_equal(pixels(signed["b64_json"]), pixels(plain["b64_json"]))
    texts = [
        Image.open(io.BytesIO(base64.b64decode(one["b64_json"]))).info for one in (signed, plain)
    ]
    assert texts[0] == texts[1] and texts[0]["unimodal:seed"] == "1"


def test_certificates_that_do_not_serve_are_refused_at_the_start(authority: Authority) -> None:
    chain, key = authority.signer("signer")
    other = authority.new_key("other", "Es256")
    root, root_key = authority.folder / "root.crt", authority.folder / "root.key"
    backwards = authority.folder / "backwards.pem"
    backwards.write_bytes(root.read_bytes() + (authority.folder / "signer.crt").read_bytes())
    authority.run("pkcs8 -topk8 -in signer.key -passout pass:secret -out locked.key")
    for given, words in (
        ((chain, other), "is not that of the key"), ((backwards, key), "is not that of the key"),
        ((key, key), "holds no certificate"), ((chain, chain), "holds no private key"),
        ((chain, authority.folder / "locked.key"), "without a password"),
        ((root, root_key), "C2PA does not take the certificate"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            ContentCredentials(*given)
    with pytest.raises(OSError):
        ContentCredentials(authority.folder / "none", key)
    authority.run("ec -in signer.key -out sec1.key")
    old_form = ContentCredentials(chain, authority.folder / "sec1.key")
    assert read(old_form.signed(png(), "mine", "f00d"))[1]["validation_state"] == "Valid"
