"""A sending service that speaks REQUIRETLS and the SCRAM mechanisms that are bound to the TLS channel. SCRAM's server side
is GNU SASL's, TLS and what it exports are OpenSSL's; only SMTP is from here.

    sending_service.py ADDRESS PORT FOLDER CHANNEL

FOLDER holds cert.pem and key.pem, and gets `log`, with each command. `ann` has the password `secret`. With the CHANNEL
`other`, GNU SASL is told of another channel than the client's, as if somebody stood between the two.
"""

import base64
import ctypes
import os
import socketserver
import sys

from OpenSSL import SSL

address, port, folder, channel = sys.argv[1:]
log = open(os.path.join(folder, "log"), "w", buffering=1)

# gsasl.h
gsasl = ctypes.CDLL("libgsasl.so.18")
OK, NEEDS_MORE, NO_CALLBACK = 0, 1, 51
AUTHID, PASSWORD, SCRAM_ITER, CB_TLS_EXPORTER = 1, 3, 15, 25
Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
gsasl.gsasl_property_fast.restype = ctypes.c_char_p
gsasl.gsasl_strerror_name.restype = ctypes.c_char_p


class Exchange:
    """One authentication by GNU SASL, which asks for what it wants to know."""

    def __init__(self, mechanism, exported):
        known = {PASSWORD: b"secret", SCRAM_ITER: b"4096", CB_TLS_EXPORTER: base64.b64encode(exported)}

        def tell(_, session, wanted):
            session = ctypes.c_void_p(session)
            stranger = wanted == PASSWORD and gsasl.gsasl_property_fast(session, AUTHID) != b"ann"
            if wanted not in known or stranger:
                return NO_CALLBACK
            gsasl.gsasl_property_set(session, wanted, known[wanted])
            return OK

        self.callback, context, self.session = Callback(tell), ctypes.c_void_p(), ctypes.c_void_p()
        assert gsasl.gsasl_init(ctypes.byref(context)) == OK
        gsasl.gsasl_callback_set(context, self.callback)
        started = gsasl.gsasl_server_start(context, mechanism.encode(), ctypes.byref(self.session))
        assert started == OK, gsasl.gsasl_strerror_name(started)

    def step(self, response):
        """What came of a response, and the next challenge."""
        challenge = ctypes.c_char_p()
        code = gsasl.gsasl_step64(self.session, response.encode(), ctypes.byref(challenge))
        return code, (challenge.value or b"").decode()


class Session(socketserver.BaseRequestHandler):
    def handle(self):
        self.channel, self.heard, self.tls = self.request, b"", False
        try:
            self.say("220 service.test ESMTP")
            while self.command(self.line()):
                pass
        except (EOFError, OSError, SSL.Error):
            pass

    def say(self, *lines):
        self.channel.sendall("".join(line + "\r\n" for line in lines).encode())

    def line(self):
        while b"\r\n" not in self.heard:
            more = self.channel.recv(65536)
            if not more:
                raise EOFError
            self.heard += more
        line, self.heard = self.heard.split(b"\r\n", 1)
        return line.decode()

    def command(self, line):
        log.write(line + "\n")
        verb, _, rest = line.partition(" ")
        if verb == "EHLO" and self.tls:
            mechanisms = "SCRAM-SHA-1 SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-256-PLUS"
            self.say("250-service.test", "250-SIZE", "250-REQUIRETLS", "250 AUTH " + mechanisms)
        elif verb == "EHLO":
            self.say("250-service.test", "250 STARTTLS")
        elif verb == "STARTTLS":
            self.say("220 go")
            self.start_tls()
        elif verb == "AUTH":
            self.authenticate(*rest.split(" "))
        elif verb == "DATA":
            self.say("354 go")
            while self.line() != ".":
                pass
            self.say("250 2.0.0 taken")
        elif verb == "QUIT":
            self.say("221 bye")
        else:
            self.say("250 ok")
        return verb != "QUIT"

    def start_tls(self):
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate_file(os.path.join(folder, "cert.pem"))
        context.use_privatekey_file(os.path.join(folder, "key.pem"))
        self.channel, self.tls = SSL.Connection(context, self.request), True
        self.channel.set_accept_state()
        self.channel.do_handshake()

    def authenticate(self, mechanism, response):
        # RFC 9266 §2.
        exported = self.channel.export_keying_material(b"EXPORTER-Channel-Binding", 32)
        exchange = Exchange(mechanism, exported if channel == "same" else os.urandom(32))
        code, challenge = exchange.step(response)
        while code == NEEDS_MORE:
            self.say("334 " + challenge)
            code, challenge = exchange.step(self.line())
        if code == OK and challenge:
            # GNU SASL's own proof that it knows the password.
            self.say("334 " + challenge)
            self.line()
        name = gsasl.gsasl_strerror_name(code).decode()
        log.write("%s: %s\n" % (mechanism, name))
        self.say("235 2.7.0 welcome" if code == OK else "535 5.7.8 " + name)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads, allow_reuse_address = True, True


Server((address, int(port)), Session).serve_forever()
