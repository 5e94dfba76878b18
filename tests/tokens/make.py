#!/usr/bin/env python3
"""Makes the keys and tokens of this folder, with another implementation than the one under test.

    pip install pyjwt cryptography && python3 tests/tokens/make.py

The keys are for tests alone. What is there already is made anew, so all files change together.
"""
import base64
import datetime
import json
import pathlib

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

HERE = pathlib.Path(__file__).parent
SECRET = b"a secret of sixty-four bytes, which is enough for HS512 as well."
CLAIMS = {
    "iss": "https://id.example.com/",
    "aud": "orders",
    "sub": "acme-client",
    "client_id": "acme-client",
    "scope": "orders:read orders:write",
    "iat": 1_700_000_000,
    "exp": 4_102_444_800,
}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value, length=None):
    return b64(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


def write(name, data):
    (HERE / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def pem(public, form=serialization.PublicFormat.SubjectPublicKeyInfo):
    return public.public_bytes(serialization.Encoding.PEM, form)


def private_pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def jwk(kid, public):
    if isinstance(public, rsa.RSAPublicKey):
        n = public.public_numbers()
        return {"kty": "RSA", "kid": kid, "use": "sig", "n": number(n.n), "e": number(n.e)}
    if isinstance(public, ec.EllipticCurvePublicKey):
        n, size = public.public_numbers(), (public.key_size + 7) // 8
        crv = {256: "P-256", 384: "P-384"}[public.key_size]
        x, y = number(n.x, size), number(n.y, size)
        return {"kty": "EC", "kid": kid, "use": "sig", "crv": crv, "x": x, "y": y}
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {"kty": "OKP", "kid": kid, "use": "sig", "crv": "Ed25519", "x": b64(raw)}


def certificate(key):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")])
    begin = datetime.datetime(2024, 1, 1)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


keys = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}
for kid, key in keys.items():
    write(f"{kid}.private.pem", private_pem(key))
    write(f"{kid}.pem", pem(key.public_key()))
write("rsa.pkcs1.pem", pem(keys["rsa"].public_key(), serialization.PublicFormat.PKCS1))
write("p256.certificate.pem", certificate(keys["p256"]))
write("rsa.certificate.pem", certificate(keys["rsa"]))
# Which must not be taken.
write("weak.rsa1024.pem", pem(rsa.generate_private_key(65537, 1024).public_key()))
write("other.secp256k1.pem", pem(ec.generate_private_key(ec.SECP256K1()).public_key()))
write("other.p521.pem", pem(ec.generate_private_key(ec.SECP521R1()).public_key()))
compressed = keys["p256"].public_key().public_bytes(
    serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
)
prefix = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
body = base64.b64encode(prefix + compressed).decode()
write(
    "other.compressed.pem",
    f"-----BEGIN PUBLIC KEY-----\n{body[:64]}\n{body[64:]}\n-----END PUBLIC KEY-----\n",
)

jwks = {"keys": [jwk(kid, key.public_key()) for kid, key in keys.items()]}
write("jwks.json", json.dumps(jwks, indent=1) + "\n")
write("secret.txt", SECRET)

signers = {"HS": "secret", "RS": "rsa", "PS": "rsa"}
own = {"ES256": "p256", "ES384": "p384", "EdDSA": "ed25519"}
tokens = {}
for algorithm in [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512",
    "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
]:
    kid = own.get(algorithm) or signers[algorithm[:2]]
    key = SECRET if kid == "secret" else keys[kid]
    tokens[algorithm] = jwt.encode(CLAIMS, key, algorithm, headers={"kid": kid})
write("tokens.json", json.dumps(tokens, indent=1) + "\n")
