"""Makes keys and tokens, valid ones and attacks, with PyJWT and cryptography, into a folder.

Usage: make.py FOLDER NOW. Tokens go to tokens.json by name; the test knows what each is worth.
"""

import base64
import datetime
import hashlib
import hmac
import json
import sys
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, utils
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

folder, now = Path(sys.argv[1]), int(sys.argv[2])
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
PKCS1 = serialization.PublicFormat.PKCS1
PKCS8 = serialization.PrivateFormat.PKCS8
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL
SSH = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
CLEAR = serialization.NoEncryption()


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def write(name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


# --- keys ---------------------------------------------------------------------------------------

rsa_key = rsa.generate_private_key(65537, 2048)
ec_key = ec.generate_private_key(ec.SECP256R1())
ed_key = ed25519.Ed25519PrivateKey.generate()
secret = b"a secret of the site, long enough for HS256"
keys = {"HS256": secret, "RS256": rsa_key, "ES256": ec_key, "EdDSA": ed_key}
others = {
    "HS256": b"a secret of another site, as long as the first one",
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}

for name, key in [("rsa", rsa_key), ("ec", ec_key), ("ed", ed_key)]:
    write(f"{name}.pem", key.public_key().public_bytes(PEM, SPKI))
    write(f"{name}.der", key.public_key().public_bytes(DER, SPKI))
    write(f"{name}.ssh", key.public_key().public_bytes(*SSH))
    write(f"{name}_private.pem", key.private_bytes(PEM, PKCS8, CLEAR))
write("rsa_pkcs1.pem", rsa_key.public_key().public_bytes(PEM, PKCS1))
write("rsa_pkcs1.der", rsa_key.public_key().public_bytes(DER, PKCS1))
write("rsa_private_traditional.pem", rsa_key.private_bytes(PEM, TRADITIONAL, CLEAR))
write("ec_private_traditional.pem", ec_key.private_bytes(PEM, TRADITIONAL, CLEAR))
write("rsa_private_encrypted.pem", rsa_key.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"x")))
write("bare.txt", base64.b64encode(rsa_key.public_key().public_bytes(DER, SPKI)))
write("small.pem", rsa.generate_private_key(65537, 1024).public_key().public_bytes(PEM, SPKI))
write("p384.pem", ec.generate_private_key(ec.SECP384R1()).public_key().public_bytes(PEM, SPKI))
write("k256.pem", ec.generate_private_key(ec.SECP256K1()).public_key().public_bytes(PEM, SPKI))
write("secret", secret)
write("secret_newline", secret + b"\r\n")
write("other.pem", others["RS256"].public_key().public_bytes(PEM, SPKI))

somebody = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
day = datetime.datetime(2026, 1, 1)
write(
    "certificate.pem",
    x509.CertificateBuilder(somebody, somebody, rsa_key.public_key(), 1, day, day + datetime.timedelta(1))
    .sign(rsa_key, hashes.SHA256())
    .public_bytes(PEM),
)


def jwk(algorithm, key, **members):
    made = algorithm.to_jwk(key, as_dict=True)
    made.pop("key_ops", None)
    return {**made, **members}


rsa_jwk = jwk(RSAAlgorithm, rsa_key.public_key(), kid="r", use="sig", alg="RS256")
ec_jwk = jwk(ECAlgorithm, ec_key.public_key(), kid="e", key_ops=["verify"])
ed_jwk = jwk(OKPAlgorithm, ed_key.public_key(), kid="d")
oct_jwk = jwk(HMACAlgorithm, secret, kid="h", alg="HS256")
skipped = [
    {**rsa_jwk, "kid": "encrypts", "use": "enc"},
    {**rsa_jwk, "kid": "pss", "alg": "PS256"},
    {**rsa_jwk, "kid": "signs", "key_ops": ["sign"]},
    jwk(ECAlgorithm, ec.generate_private_key(ec.SECP384R1()).public_key(), kid="p384"),
    {"kty": "post-quantum", "kid": "new"},
    {**rsa_jwk, "kid": "broken", "n": "!"},
    {**ec_jwk, "kid": "off the curve", "x": b64(b"\1" * 32)},
    7,
]
usable = [rsa_jwk, ec_jwk, ed_jwk, oct_jwk]
write("jwks.json", json.dumps({"keys": [*skipped, *usable], "note": "more members are allowed"}))
write("jwks_unusable.json", json.dumps({"keys": skipped}))
write("jwks_empty.json", json.dumps({"keys": []}))
write("jwks_private.json", json.dumps({"keys": [rsa_jwk, jwk(ECAlgorithm, ec_key, kid="leaked")]}))
write("jwks_short.json", json.dumps({"keys": [jwk(HMACAlgorithm, b"short", kid="h")]}))
other_jwk = jwk(RSAAlgorithm, others["RS256"].public_key(), kid="r")
write("jwks_other.json", json.dumps({"keys": [other_jwk]}))

# --- tokens -------------------------------------------------------------------------------------

tokens = {}
kids = {"HS256": "h", "RS256": "r", "ES256": "e", "EdDSA": "d"}
claims = {"sub": "42", "exp": now + 60, "nbf": now - 60, "iat": now - 60, "iss": "https://issuer.example"}
claims["aud"] = "wootz"


def make(claims=claims, algorithm="HS256", key=None, **headers):
    return jwt.encode(claims, keys[algorithm] if key is None else key, algorithm=algorithm, headers=headers)


def raw(payload, algorithm="HS256", **headers):
    """Signs any bytes."""
    return jwt.api_jws.encode(payload.encode(), keys[algorithm], algorithm=algorithm, headers=headers)


def with_header(header, secret, payload=json.dumps(claims)):
    """An HMAC token with any header, which PyJWT would not make."""
    signed = f"{b64(header if isinstance(header, bytes) else json.dumps(header).encode())}.{b64(payload.encode())}"
    return f"{signed}.{b64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


for algorithm, key in keys.items():
    token = make(algorithm=algorithm)
    signed, _, signature = token.rpartition(".")
    header, payload = signed.split(".")
    tokens[f"good {algorithm}"] = token
    tokens[f"kid {algorithm}"] = make(algorithm=algorithm, kid=kids[algorithm])
    tokens[f"expired {algorithm}"] = make({**claims, "exp": now - 31}, algorithm)
    tokens[f"late {algorithm}"] = make({**claims, "exp": now - 29}, algorithm)
    tokens[f"other key {algorithm}"] = make(algorithm=algorithm, key=others[algorithm])
    other = others[algorithm]
    tokens[f"other key of this kid {algorithm}"] = make(algorithm=algorithm, key=other, kid=kids[algorithm])
    tokens[f"unknown kid {algorithm}"] = make(algorithm=algorithm, kid="../../dev/null")
    tokens[f"other claims {algorithm}"] = f"{header}.{b64(json.dumps({**claims, 'sub': '1'}).encode())}.{signature}"
    tokens[f"no signature {algorithm}"] = f"{signed}."
    tokens[f"short signature {algorithm}"] = token[:-4]
    tokens[f"long signature {algorithm}"] = token + "AAAA"
    tokens[f"zero signature {algorithm}"] = f"{signed}.{b64(bytes(len(base64.urlsafe_b64decode(signature + '=='))))}"
    for other in keys:
        if other != algorithm:
            swapped = b64(json.dumps({"alg": other, "typ": "JWT"}).encode())
            tokens[f"{algorithm} says {other}"] = f"{swapped}.{payload}.{signature}"
            tokens[f"{algorithm} with kid of {other}"] = make(algorithm=algorithm, kid=kids[other])

# Without a signature, in all spellings.
tokens["unsigned"] = jwt.encode(claims, None, algorithm="none")
for spelling in ["None", "NONE", "nOnE"]:
    header = b64(json.dumps({"alg": spelling}).encode())
    tokens[f"unsigned {spelling}"] = f"{header}.{b64(json.dumps(claims).encode())}."
tokens["unsigned but HMAC"] = with_header({"alg": "none"}, secret)

# What is public, used as a secret.
public = ["rsa.pem", "rsa.der", "rsa_pkcs1.pem", "rsa_pkcs1.der", "ec.pem", "ec.der", "ed.pem", "ed.der", "jwks.json"]
for file in public:
    tokens[f"public {file}"] = with_header({"alg": "HS256"}, (folder / file).read_bytes())
    tokens[f"public stripped {file}"] = with_header({"alg": "HS256"}, (folder / file).read_bytes().strip())
    tokens[f"public of kid {file}"] = with_header({"alg": "HS256", "kid": "r"}, (folder / file).read_bytes())
tokens["public numbers"] = with_header({"alg": "HS256"}, ed_key.public_key().public_bytes_raw())
tokens["public empty"] = with_header({"alg": "HS256"}, b"")

# Keys that the token brings along.
attacker = others["RS256"].public_key()
tokens["brings jwk"] = make(algorithm="RS256", key=others["RS256"], jwk=jwk(RSAAlgorithm, attacker))
tokens["brings jku"] = make(algorithm="RS256", key=others["RS256"], jku="https://attacker.example/jwks.json")
tokens["brings x5u"] = make(algorithm="RS256", key=others["RS256"], x5u="https://attacker.example/x.pem")
tokens["brings x5c"] = make(algorithm="RS256", key=others["RS256"], x5c=[b64(attacker.public_bytes(DER, SPKI))])

# An ECDSA signature as certificates have it.
signed, _, signature = make(algorithm="ES256").rpartition(".")
signature = base64.urlsafe_b64decode(signature + "==")
numbers = [int.from_bytes(part, "big") for part in (signature[:32], signature[32:])]
tokens["ecdsa in der"] = f"{signed}.{b64(utils.encode_dss_signature(*numbers))}"

# Algorithms that are real, but not ours.
for algorithm in ["HS384", "HS512", "RS384", "RS512", "PS256"]:
    key = secret * 2 if algorithm.startswith("HS") else rsa_key
    tokens[f"algorithm {algorithm}"] = jwt.encode(claims, key, algorithm=algorithm)
tokens["algorithm hs256"] = with_header({"alg": "hs256"}, secret)
tokens["algorithm empty"] = with_header({"alg": ""}, secret)
tokens["algorithm missing"] = with_header({"typ": "JWT"}, secret)
tokens["algorithm is a list"] = with_header({"alg": ["HS256"]}, secret)

# Headers.
tokens["crit"] = with_header({"alg": "HS256", "crit": ["exp"]}, secret)
tokens["crit is empty"] = with_header({"alg": "HS256", "crit": []}, secret)
tokens["crit b64"] = with_header({"alg": "HS256", "b64": False, "crit": ["b64"]}, secret)
tokens["header twice alg"] = with_header(b'{"alg":"HS256","alg":"none"}', secret)
tokens["header is a list"] = with_header(b'["HS256"]', secret)
tokens["header is no JSON"] = with_header(b"alg: HS256", secret)
tokens["header is deep"] = with_header(b'{"alg":"HS256","x":' + b"[" * 500 + b"]" * 500 + b"}", secret)
tokens["kid is a number"] = with_header({"alg": "HS256", "kid": 1}, secret)

# The text around.
good = tokens["good HS256"]
header, payload, signature = good.split(".")
tokens["text empty"] = ""
tokens["text dots"] = ".."
tokens["text one part"] = header
tokens["text two parts"] = f"{header}.{payload}"
tokens["text four parts"] = f"{good}.{signature}"
tokens["text encrypted"] = f"{good}.{signature}.{signature}"
tokens["text padded"] = f"{good}="
tokens["text space"] = f" {good}"
tokens["text newline"] = f"{good}\n"
tokens["text twice"] = f"{good},{good}"
tokens["text plus"] = f"{header}.{payload}.{'+' + signature[1:]}"
tokens["text too long"] = make({**claims, "x": "x" * 8192})
tokens["text long"] = make({**claims, "x": "x" * 5000})

# Claims.
body = json.dumps(claims)[1:-1]
for name, payload in {
    "twice sub": f'{{{body},"sub":"1"}}',
    "twice sub escaped": f'{{{body},"\\u0073ub":"1"}}',
    "twice inside": f'{{{body},"x":{{"a":1,"a":2}}}}',
    "list": f"[{{{body}}}]",
    "empty": "",
    "trailing": f"{{{body}}}{{}}",
    "text": '"sub"',
    "deep": f'{{{body},"x":{"[" * 100}{"]" * 100}}}',
    "deeper": f'{{{body},"x":{"[" * 2500}{"]" * 2500}}}',
    "nested token": good,
}.items():
    tokens[f"claims {name}"] = raw(payload)
for name, value in {
    "text": f'"{now + 60}"',
    "1e400": "1e400",
    "1e300": "1e300",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "negative": "-1",
    "negative fraction": "-0.5",
    "null": "null",
    "true": "true",
    "list": f"[{now + 60}]",
    "object": "{}",
    "milliseconds": f"{(now + 60) * 1000}",
    "2^64": "18446744073709551616",
    "2^63": "9223372036854775808",
}.items():
    for claim in ["exp", "nbf", "iat"]:
        times = {"exp": f"{now + 60}", claim: value}
        tokens[f"time {claim} {name}"] = raw("{" + ",".join(f'"{key}":{value}' for key, value in times.items()) + "}")
for name, change in {
    "no exp": {"exp": None},
    "fraction": {"exp": now + 0.5},
    "at exp": {"exp": now - 30},
    "not yet": {"nbf": now + 31},
    "early": {"nbf": now + 30},
    "issuer other": {"iss": "https://issuer.example/"},
    "issuer missing": {"iss": None},
    "audience list": {"aud": ["other", "wootz"]},
    "audience other": {"aud": "wootz2"},
    "audience others": {"aud": ["a", "b"]},
    "audience none": {"aud": []},
    "audience missing": {"aud": None},
    "user missing": {"sub": None},
    "user empty": {"sub": ""},
    "user control": {"sub": "a\0b"},
    "user 129 bytes": {"sub": "ü" * 64 + "x"},
    "user 128 bytes": {"sub": "ü" * 64},
}.items():
    changed = {name: value for name, value in {**claims, **change}.items() if value is not None}
    tokens[f"claim {name}"] = make(changed)
kinds = {"audience number": '"aud":1', "audience mixed": '"aud":["wootz",1]', "issuer list": '"iss":["a"]'}
for name, value in kinds.items():
    tokens[f"kind {name}"] = raw(f'{{"sub":"1","exp":{now + 60},{value}}}')
for name, value in {
    "number": "42",
    "0": "0",
    "big": "18446744073709551615",
    "null": "null",
    "fraction": "4.2",
    "negative": "-4",
    "list": "[1]",
    "object": "{}",
    "true": "true",
    "huge": "18446744073709551616",
}.items():
    tokens[f"user {name}"] = raw(f'{{"sub":{value},"exp":{now + 60},"aud":"wootz"}}')
path = {"exp": now + 60, "auth": {"user": {"id": 7}}, "https://a.example/id": "dotted", "sub": "s"}
tokens["user path"] = raw(json.dumps({**path, "aud": "wootz"}))

write("tokens.json", json.dumps(tokens))
