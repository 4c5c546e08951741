"""A server for webhooks that is not ours: checks each request with Python's own hmac, and prints it as a line of JSON.

notify_receiver.py CERTIFICATE KEY SECRET    serves https on a free port of loopback; the first line is the port
"""

import base64
import hashlib
import hmac
import http.server
import json
import ssl
import sys
import time

certificate, key, secret = sys.argv[1:]
secret = base64.b64decode(secret.removeprefix("whsec_"))
refused = set()


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        identity, moment = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        signed = f"{identity}.{moment}.".encode() + body
        expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        signatures = (self.headers["webhook-signature"] or "").split()
        seen = {
            "path": self.path,
            "host": self.headers["Host"],
            "type": self.headers["Content-Type"],
            "id": identity,
            "signed": any(hmac.compare_digest(one, "v1," + expected) for one in signatures),
            "recent": abs(time.time() - int(moment)) < 300,
            "event": json.loads(body),
        }
        print(json.dumps(seen), flush=True)
        status, headers = 204, {}
        if self.path == "/once" and identity not in refused:
            refused.add(identity)
            status = 503
        elif self.path == "/gone":
            status = 410
        elif self.path == "/moved":
            status, headers = 307, {"Location": "/elsewhere"}
        elif self.path == "/slow":
            time.sleep(20)
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            if status != 204 or name != "Content-Length":
                self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
