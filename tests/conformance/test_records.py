#!/usr/bin/env python3
"""Records that no library sends: records.c against a server.

    test_records.py HOLDFASTD HOLDFAST_TOKEN CLIENT... (see peers.py)
"""
import socket
import ssl
import subprocess

import peers
import harness
import wire

UNEXPECTED_MESSAGE, RECORD_OVERFLOW = 10, 22
DECODE_ERROR, PROTOCOL_VERSION = 50, 70


def record(kind, payload, version=0x0303):
    return bytes([kind]) + version.to_bytes(2, "big") + len(payload).to_bytes(2, "big") + payload


def client_hello(context):
    """A good one, as a record, and the connection that it belongs to, over memory."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read(), tls, incoming, outgoing


class Handshake(harness.ServerTest):
    """What may not stand before or within a handshake. mbedTLS answers most of it."""

    def assert_plain_alert(self, data, alert):
        with socket.create_connection(self.server.address, timeout=wire.TIMEOUT) as connection:
            connection.sendall(data)
            got = connection.recv(4096)
            connection.shutdown(socket.SHUT_WR)  # else the server waits for us
            while chunk := connection.recv(4096):
                got += chunk
        self.assertEqual(got, record(21, bytes([2, alert])))

    def test_wrong_beginnings_get_their_alert(self):
        hello = client_hello(self.server.context)[0]
        old = wire.tls_context(self.keys.path("ca.pem"))
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
        rows = [
            ("change_cipher_spec first", "5", record(20, b"\x01"), UNEXPECTED_MESSAGE),
            ("change_cipher_spec of another value", "5", record(20, b"\x02"), UNEXPECTED_MESSAGE),
            ("data first", "5", record(23, b"x" * 40), UNEXPECTED_MESSAGE),
            ("unknown record type", "5", record(99, b"x"), UNEXPECTED_MESSAGE),
            ("empty handshake record", "5.1", record(22, b""), UNEXPECTED_MESSAGE),
            ("more than 2^14 in plain", "5.1", record(22, hello[5:] + b"x" * 16384),
             RECORD_OVERFLOW),
            ("64 KB in plain", "5.1", record(22, b"x" * 65535), RECORD_OVERFLOW),
            ("ServerHello", "4", record(22, b"\x02\0\0\x04abcd"), UNEXPECTED_MESSAGE),
            ("Finished", "4", record(22, b"\x14\0\0\x04abcd"), UNEXPECTED_MESSAGE),
            ("ClientHello that is cut", "4.1.2, 6.2", record(22, b"\x01\0\0\x04abcd"),
             DECODE_ERROR),
            ("a message behind ClientHello", "5.1", record(22, hello[5:] + b"\x14\0\0\x01x"),
             UNEXPECTED_MESSAGE),
            ("a piece of one behind it", "5.1", record(22, hello[5:] + b"\x14"),
             UNEXPECTED_MESSAGE),
            ("TLS 1.2 alone", "4.2.1", client_hello(old)[0], PROTOCOL_VERSION),
        ]
        for name, source, data, alert in rows:
            with self.subTest(name, source=source):
                self.assert_plain_alert(data, alert)


class Records(harness.ServerTest):
    # The attacker logs in again and again.
    OPTIONS = {"handshakes_max": 64}

    def test_each_gets_the_alert_of_rfc_8446(self):
        user = self.new_user()
        hello = wire.frame(wire.HELLO, wire.hello_payload(user, 1, self.keys.token(user)))
        done = subprocess.run([peers.Programs.records, self.server.address[0],
                               str(self.server.address[1]), hello.hex()],
                              capture_output=True, text=True, timeout=250, check=False)
        print(done.stdout)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        client = self.login(user)  # the server has survived it all
        client.ping()
        client.leave()


if __name__ == "__main__":
    peers.main()
