#!/usr/bin/env python3
"""Records that no library sends: records.c against a server.

    test_records.py HOLDFASTD HOLDFAST_TOKEN CLIENT... (see peers.py)
"""
import subprocess

import peers
import harness
import wire


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
