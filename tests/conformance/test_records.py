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

    def answer_to(self, change):
        """The server's alert to a client's second flight, as OpenSSL's library reads it."""
        hello, tls, incoming, outgoing = client_hello(self.server.context)
        with socket.create_connection(self.server.address, timeout=wire.TIMEOUT) as connection:
            connection.sendall(hello)
            while True:
                try:
                    incoming.write(connection.recv(16384))
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    pass
            connection.sendall(change(outgoing.read()))
            try:
                while chunk := connection.recv(16384):
                    incoming.write(chunk)
                    tls.read(1)
            except ssl.SSLWantReadError:
                return "nothing"
            except ssl.SSLError as error:
                return error.reason
        return "the end"

    def test_wrong_second_flights_get_their_alert(self):
        hello = client_hello(self.server.context)[0]

        def tail_changed(flight):
            return flight[:-1] + bytes([flight[-1] ^ 1])

        rows = [
            ("Finished that is changed", "5.2", tail_changed, "SSLV3_ALERT_BAD_RECORD_MAC"),
            ("another value of change_cipher_spec", "5", lambda _: record(20, b"\x02"),
             "UNEXPECTED_MESSAGE"),
            ("change_cipher_spec of two bytes", "5", lambda _: record(20, b"\x01\x01"),
             "UNEXPECTED_MESSAGE"),
            ("a second ClientHello", "4.1.2", lambda _: hello, "UNEXPECTED_MESSAGE"),
            ("longer than 2^14 + 256", "5.2", lambda _: record(23, b"x" * 16641),
             "RECORD_OVERFLOW"),
            ("no record of TLS", "5", lambda _: b"GET / HTTP/1.1\r\n\r\n", "UNEXPECTED_MESSAGE"),
        ]
        for name, source, change, reason in rows:
            with self.subTest(name, source=source):
                self.assertIn(reason, self.answer_to(change))


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
