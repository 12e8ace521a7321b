#!/usr/bin/env python3
"""holdfast-token from outside: what it writes, other implementations read, and the other way round.

    test_program.py PROGRAM

Signatures are made and checked here by hmac and by the openssl program, not by our own code.
"""
import base64
import hashlib
import hmac
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest

PROGRAM = ""
OK, USAGE, DATAERR, NOINPUT, CANTCREAT, IOERR, CONFIG = 0, 64, 65, 66, 73, 74, 78


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def hs256(secret, header, claims):
    signed = encode(json.dumps(header).encode()) + "." + encode(json.dumps(claims).encode())
    return signed + "." + encode(hmac.new(secret, signed.encode(), hashlib.sha256).digest())


def der_integer(data):
    data = data.lstrip(b"\0") or b"\0"
    if data[0] & 0x80:
        data = b"\0" + data
    return bytes([2, len(data)]) + data


class ProgramTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="holdfast-token-test.")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def run_program(self, *arguments, code=OK, text=""):
        done = subprocess.run([PROGRAM, *arguments], input=text, capture_output=True, text=True,
                              cwd=self.folder, timeout=60, check=False)
        self.assertEqual(done.returncode, code, done.stderr)
        if code != OK and not done.stdout:
            self.assertRegex(done.stderr, r"^holdfast-token: ")
        return done.stdout if code == OK else done.stderr

    def new_key(self, alg, kid="k", out="keys.jwks", public=None, code=OK):
        return self.run_program("keys", "new", "--alg", alg, "--kid", kid, "--out", out,
                                *(["--public", public] if public else []), code=code)

    def keys_in(self, name):
        with open(self.path(name), encoding="ascii") as file:
            return json.load(file)["keys"]

    def assert_mode(self, name, mode):
        self.assertEqual(stat.S_IMODE(os.stat(self.path(name)).st_mode), mode)


class Keys(ProgramTest):
    def test_new_keys_are_appended_to_a_private_file(self):
        self.new_key("ES256", "a")
        self.new_key("HS256", "b")
        self.assert_mode("keys.jwks", 0o600)
        first, second = self.keys_in("keys.jwks")
        self.assertEqual((first["kty"], first["crv"], first["kid"], first["alg"]),
                         ("EC", "P-256", "a", "ES256"))
        self.assertEqual([len(decode(first[name])) for name in "xyd"], [32, 32, 32])
        self.assertEqual((second["kty"], second["kid"], second["alg"]), ("oct", "b", "HS256"))
        self.assertEqual(len(decode(second["k"])), 32)
        self.assertEqual(os.listdir(self.folder), ["keys.jwks"])

    def test_public_file_has_no_private_half(self):
        self.new_key("ES256", "a", public="server.jwks")
        self.new_key("ES256", "b", public="server.jwks")
        self.assert_mode("server.jwks", 0o600)
        issuer, server = self.keys_in("keys.jwks"), self.keys_in("server.jwks")
        for private, public in zip(issuer, server, strict=True):
            del private["d"]
            self.assertEqual(private, public)

    def test_kid_that_is_taken_changes_nothing(self):
        self.new_key("ES256", "a", public="server.jwks")
        before = self.keys_in("keys.jwks")
        self.assertIn('kid "a" already', self.new_key("HS256", "a", code=DATAERR))
        self.assertIn('kid "a" already',
                      self.new_key("ES256", "a", out="other.jwks", public="server.jwks",
                                   code=DATAERR))
        self.assertEqual(self.keys_in("keys.jwks"), before)
        self.assertFalse(os.path.exists(self.path("other.jwks")))

    def test_keys_made_at_once_are_all_kept(self):
        threads = [threading.Thread(target=self.new_key, args=("HS256", str(number)))
                   for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual({key["kid"] for key in self.keys_in("keys.jwks")},
                         {str(number) for number in range(16)})

    def test_secret_is_never_called_public(self):
        self.assertIn("no public half",
                      self.new_key("HS256", public="server.jwks", code=USAGE))
        self.assertEqual(os.listdir(self.folder), [])

    def test_foreign_keys_are_not_lost(self):
        with open(self.path("keys.jwks"), "w", encoding="ascii") as file:
            file.write('{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"r"}]}')
        os.chmod(self.path("keys.jwks"), 0o600)
        self.assertIn("keys of other kinds", self.new_key("HS256", code=DATAERR))

    def test_file_that_others_may_read_is_refused_with_the_remedy(self):
        self.new_key("HS256")
        os.chmod(self.path("keys.jwks"), 0o644)
        for arguments in (["keys", "new", "--alg", "HS256", "--kid", "b", "--out", "keys.jwks"],
                          ["issue", "--key", "keys.jwks", "--kid", "k", "--user", "1"]):
            error = self.run_program(*arguments, code=CONFIG)
            self.assertIn("keys.jwks: mode 0644", error)
            self.assertIn("chmod 600 keys.jwks", error)


class Tokens(ProgramTest):
    def issue(self, *arguments, kid="k", key="keys.jwks"):
        return self.run_program("issue", "--key", key, "--kid", kid, *arguments).splitlines()

    def test_hs256_token_is_what_hmac_makes(self):
        self.new_key("HS256")
        before = int(time.time())
        [token] = self.issue("--user", "42", "--device", "7", "--ttl", "15m")
        header, claims, signature = token.split(".")
        secret = decode(self.keys_in("keys.jwks")[0]["k"])
        self.assertEqual(decode(signature),
                         hmac.new(secret, (header + "." + claims).encode(), "sha256").digest())
        self.assertEqual(json.loads(decode(header)), {"alg": "HS256", "typ": "JWT", "kid": "k"})
        claims = json.loads(decode(claims))
        self.assertEqual((claims["sub"], claims["dev"]), ("42", "7"))
        self.assertIn(claims["iat"] - before, range(60))
        self.assertEqual(claims["exp"] - claims["iat"], 900)

    def test_token_made_by_hmac_is_valid(self):
        self.new_key("HS256")
        secret = decode(self.keys_in("keys.jwks")[0]["k"])
        claims = {"sub": "42", "dev": "7", "exp": int(time.time()) + 60, "name": "Zoë"}
        token = hs256(secret, {"alg": "HS256", "kid": "k"}, claims)
        self.assertIn("verified  yes", self.run_program("show", "--key", "keys.jwks", token))

    def test_es256_token_is_what_openssl_verifies(self):
        self.new_key("ES256", public="server.jwks")
        [token] = self.issue("--user", "42")
        signed, _, signature = token.rpartition(".")
        key = self.keys_in("server.jwks")[0]
        numbers = decode(signature)
        self.assertEqual(len(numbers), 64)
        body = der_integer(numbers[:32]) + der_integer(numbers[32:])
        # SubjectPublicKeyInfo of a point on P-256 (RFC 5480)
        info = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200" "04")
        for name, data in (("signature", bytes([0x30, len(body)]) + body),
                           ("public.der", info + decode(key["x"]) + decode(key["y"])),
                           ("signed", signed.encode())):
            with open(self.path(name), "wb") as file:
                file.write(data)
        done = subprocess.run(["openssl", "dgst", "-sha256", "-keyform", "DER", "-verify",
                               "public.der", "-signature", "signature", "signed"],
                              cwd=self.folder, capture_output=True, text=True, check=False)
        self.assertEqual(done.stdout.strip(), "Verified OK", done.stderr)
        self.assertIn("verified  yes", self.run_program("show", "--key", "server.jwks", token))

    def test_many_tokens_are_for_users_in_turn(self):
        self.new_key("HS256")
        tokens = self.issue("--count", "2000", "--first-user", "9223372036854773808")
        self.assertEqual(len(tokens), 2000)
        subjects = [int(json.loads(decode(token.split(".")[1]))["sub"]) for token in tokens]
        self.assertEqual(subjects, list(range(2**63 - 2000, 2**63)))
        self.run_program("issue", "--key", "keys.jwks", "--kid", "k", "--count", "2001",
                         "--first-user", "9223372036854773808", code=USAGE)

    def test_show_is_json_when_asked(self):
        self.new_key("HS256")
        [token] = self.issue("--user", "42", "--audience", "chat")
        shown = json.loads(self.run_program("show", "--json", token))
        self.assertEqual((shown["header"]["kid"], shown["claims"]["aud"], shown["status"]),
                         ("k", "chat", None))
        shown = json.loads(self.run_program("show", "--json", "--key", "keys.jwks", "--audience",
                                            "chat", "-", text=token + "\n"))
        self.assertEqual(shown["status"], "ok")

    def show_refused(self, token):
        done = subprocess.run([PROGRAM, "show", "--json", "--key", "keys.jwks", token],
                              cwd=self.folder, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, DATAERR)
        return json.loads(done.stdout)["status"]

    def test_show_says_why_a_token_is_refused(self):
        self.new_key("HS256")
        self.new_key("ES256", "e")
        secret = decode(self.keys_in("keys.jwks")[0]["k"])
        now = int(time.time())
        claims = {"sub": "42", "dev": "7", "exp": now + 60}
        header = {"alg": "HS256", "kid": "k"}
        for wanted, token in (
                ("expired", hs256(secret, header, claims | {"exp": now - 1})),
                ("not_yet_valid", hs256(secret, header, claims | {"nbf": now + 50})),
                ("bad_user", hs256(secret, header, claims | {"sub": "01"})),
                ("bad_device", hs256(secret, header, claims | {"dev": "0"})),
                ("bad_audience", hs256(secret, header, claims | {"aud": "mail"})),
                ("unknown_key", hs256(secret, header | {"kid": "../k"}, claims)),
                ("bad_alg", hs256(secret, header | {"alg": "none"}, claims)),
                ("alg_mismatch", hs256(secret, header | {"kid": "e"}, claims)),
                ("bad_signature", hs256(b"another", header, claims)),
                ("bad_signature", hs256(secret, header, claims).rpartition(".")[0] + ".")):
            with self.subTest(wanted):
                self.assertEqual(self.show_refused(token), wanted)

    def test_what_a_stranger_wrote_does_not_reach_the_terminal_raw(self):
        token = encode(b'{"alg":"none"}') + "." + encode('{"sub":"\u009b2J\u202e"}'.encode()) + "."
        shown = self.run_program("show", token)
        self.assertTrue(shown.isascii())
        self.assertIn(r"\xc2\x9b2J", shown)

    def test_what_is_no_token_is_refused(self):
        for text in ("", "x", "..", "e30.e30", "a" * 5000, "eyI.e30.", "e30.W10."):
            with self.subTest(text[:10]):
                self.assertIn("not a JSON Web Token",
                              self.run_program("show", text, code=DATAERR))
        self.run_program("show", "-", code=USAGE)

    def test_public_key_cannot_issue(self):
        self.new_key("ES256", public="server.jwks")
        self.assertIn("no private part",
                      self.run_program("issue", "--key", "server.jwks", "--kid", "k", "--user",
                                       "1", code=DATAERR))
        self.run_program("issue", "--key", "absent.jwks", "--kid", "k", "--user", "1",
                         code=NOINPUT)
        self.run_program("issue", "--key", "server.jwks", "--kid", "z", "--user", "1",
                         code=DATAERR)

    def test_full_disk_is_not_success(self):
        self.new_key("HS256")
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([PROGRAM, "issue", "--key", "keys.jwks", "--kid", "k", "--user",
                                   "1", "--count", "1000"], stdout=full, cwd=self.folder,
                                  capture_output=False, stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, IOERR)


class Certificates(ProgramTest):
    def openssl(self, *arguments):
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True,
                              text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_certificate_fits_its_names_and_authority(self):
        self.run_program("cert", "--ca-dir", "pki", "--name", "chat.example", "--name",
                         "127.0.0.1", "--name", "::1")
        for name, mode in (("ca-key.pem", 0o600), ("server-key.pem", 0o600)):
            self.assert_mode("pki/" + name, mode)
        for check in (["-verify_hostname", "chat.example"], ["-verify_ip", "127.0.0.1"],
                      ["-verify_ip", "::1"]):
            self.openssl("verify", "-x509_strict", "-purpose", "sslserver", *check, "-CAfile",
                         "pki/ca.pem", "pki/server.pem")
        public = self.openssl("x509", "-in", "pki/server.pem", "-noout", "-pubkey")
        self.assertEqual(self.openssl("pkey", "-in", "pki/server-key.pem", "-pubout"), public)
        public = self.openssl("x509", "-in", "pki/ca.pem", "-noout", "-pubkey")
        self.assertEqual(self.openssl("pkey", "-in", "pki/ca-key.pem", "-pubout"), public)

    def test_days_are_as_asked(self):
        self.run_program("cert", "--ca-dir", "pki", "--name", "127.0.0.1", "--days", "2")
        self.openssl("x509", "-in", "pki/server.pem", "-noout", "-checkend", str(86400))
        done = subprocess.run(["openssl", "x509", "-in", "pki/server.pem", "-noout", "-checkend",
                               str(3 * 86400)], cwd=self.folder, capture_output=True, check=False)
        self.assertEqual(done.returncode, 1)

    def test_nothing_is_written_over(self):
        self.run_program("cert", "--ca-dir", "pki", "--name", "a")
        with open(self.path("pki/ca.pem"), "rb") as file:
            before = file.read()
        os.unlink(self.path("pki/server.pem"))
        self.assertIn("is there already",
                      self.run_program("cert", "--ca-dir", "pki", "--name", "a", code=CANTCREAT))
        with open(self.path("pki/ca.pem"), "rb") as file:
            self.assertEqual(file.read(), before)
        self.assertFalse(os.path.exists(self.path("pki/server.pem")))


class CommandLine(ProgramTest):
    def test_help_and_version(self):
        self.assertRegex(self.run_program("--version"),
                         r"^holdfast-token \d+\.\d+\.\d+ \(Mbed TLS 3\.6\.\d+\)\n$")
        for arguments in (["--help"], ["issue", "--help"], ["keys", "new", "--help"]):
            self.assertRegex(self.run_program(*arguments), r"^usage: holdfast-token keys new")

    def test_every_option_of_help_is_in_the_manual(self):
        folder = os.path.dirname(os.path.abspath(__file__))
        manual = os.path.join(folder, "../../../docs/holdfast-token.1")
        with open(manual, encoding="utf-8") as file:
            text = file.read()
        for word in self.run_program("--help").split():
            if word.startswith("--") and word[2:].strip("]").replace("-", "").isalpha():
                self.assertIn("-" + word[2:].strip("]"), text)

    def test_wrong_usage_is_refused(self):
        key = ["--key", "k", "--kid", "k", "--user", "1"]
        for arguments in (
                [], ["keys"], ["keys", "old"], ["frobnicate"], ["issue"], ["show"], ["cert"],
                ["issue", "--frobnicate"], ["issue", "--key"], ["issue", *key, "more"],
                ["show", "a", "b"], ["issue", *key, "--kid", "again"],
                ["issue", "--key", "k", "--kid", "k", "--user", "0"],
                ["issue", "--key", "k", "--kid", "k", "--user", "-1"],
                ["issue", "--key", "k", "--kid", "k", "--user", " 1"],
                ["issue", "--key", "k", "--kid", "k", "--user", "9223372036854775808"],
                ["issue", *key, "--device", "0"], ["issue", *key, "--device", "4294967296"],
                ["issue", *key, "--ttl", "1"], ["issue", *key, "--ttl", "0s"],
                ["issue", *key, "--ttl", "1y"], ["issue", *key, "--ttl", "3651d"],
                ["issue", *key, "--ttl", "h"], ["issue", *key, "--count", "0"],
                ["issue", *key, "--audience", 'a"b'],
                ["keys", "new", "--alg", "none", "--kid", "k", "--out", "f"],
                ["cert", "--ca-dir", "d", "--name", "a", "--days", "0"],
                ["cert", "--ca-dir", "d", *(["--name", "a"] * 17)]):
            with self.subTest(" ".join(arguments)):
                self.run_program(*arguments, code=USAGE)
        self.assertEqual(os.listdir(self.folder), [])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main()
