"""Our corpus of requests that two servers could read differently: each is to be refused, or to be exactly one request.

Shapes after https://portswigger.net/research/http-desync-attacks-request-smuggling-reborn, https://github.com/narfindustries/http-garden
and RFC 9112; the bytes are our own. SMUGGLED is what an attacker would like to have read as a second request.
"""

from tests.wire import AUTH, BODY, JSON, post

HOST = b"host: bursar.example\r\n"
LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
SMUGGLED = post()
N = b"%d" % len(BODY)


def raw(*headers, body=b"", line=LINE, host=HOST, auth=AUTH):
    return line + host + auth + JSON + b"".join(h + b"\r\n" for h in headers) + b"\r\n" + body


def chunk(*pieces, last=b"0\r\n\r\n"):
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + last


CHUNKED = chunk(BODY)
TE = b"Transfer-Encoding: "
CL = b"Content-Length: "

CASES = {
    # two lengths
    "cl.te": raw(CL + b"6", TE + b"chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "te.cl": raw(TE + b"chunked", CL + b"4", body=b"5c\r\n" + SMUGGLED[:0x5C] + b"\r\n0\r\n\r\n"),
    "cl.te, a whole body": raw(CL + N, TE + b"chunked", body=CHUNKED),
    "two content-lengths, equal": raw(CL + N, CL + N, body=BODY),
    "two content-lengths, differing": raw(CL + N, CL + b"0", body=BODY),
    "a list of content-lengths": raw(CL + N + b", " + N, body=BODY),
    "a list of differing content-lengths": raw(CL + N + b", 0", body=BODY),
    "a content-length of another case twice": raw(b"CONTENT-LENGTH: " + N, b"content-length: 0", body=BODY),
    # content-lengths that are no number
    **{
        f"content-length {name}": raw(CL + value, body=BODY + SMUGGLED)
        for name, value in {
            "signed": b"+" + N, "negative": b"-1", "hexadecimal": b"0x3", "with an underscore": b"1_0", "with a point": b"3.0",
            "empty": b"", "a word": b"chunked", "with a space inside": b"1 0", "huge": b"9" * 40, "two to the 64": b"18446744073709551617",
            "with a letter": N + b"a", "quoted": b'"' + N + b'"', "arabic digits": "٣".encode(), "with a comma": N + b",",
        }.items()
    },
    "content-length with zeros before": raw(CL + b"000" + N, body=BODY),
    "content-length after a tab": raw(b"Content-Length:\t" + N, body=BODY),
    "no length and a request behind": raw(body=SMUGGLED),
    "0.cl": raw(CL + b"0", body=SMUGGLED),
    # transfer-encodings
    **{
        f"transfer-encoding {name}": raw(TE + value, body=b"0\r\n\r\n" + SMUGGLED)
        for name, value in {
            "gzip, chunked": b"gzip, chunked", "chunked, identity": b"chunked, identity", "identity": b"identity", "xchunked": b"xchunked",
            "chunkedx": b"chunkedx", "chunked;q=1": b"chunked;q=1", "chunked, chunked": b"chunked, chunked", "quoted": b'"chunked"',
            "empty": b"", "comma": b"chunked,", "leading comma": b",chunked", "space inside": b"chun ked", "vertical tab": b"\x0bchunked",
            "form feed": b"chunked\x0c", "nul": b"chunked\x00", "cr": b"chunked\rx", "deflate": b"deflate", "kelvin": b"chunKed",
            "cow": b"cow", "unicode k": "chunKed".replace("K", "\u212a").encode(),
        }.items()
    },
    "transfer-encoding chunked twice": raw(TE + b"chunked", TE + b"chunked", body=CHUNKED),
    "transfer-encoding chunked, then another": raw(TE + b"chunked", TE + b"x", body=CHUNKED),
    "transfer-encoding another, then chunked": raw(TE + b"x", TE + b"chunked", body=CHUNKED),
    "transfer-encoding of another case": raw(TE + b"Chunked", body=CHUNKED),
    "transfer-encoding in HTTP/1.0": raw(TE + b"chunked", body=CHUNKED + SMUGGLED, line=LINE.replace(b"1.1", b"1.0")),
    "transfer-encoding and length in HTTP/1.0": raw(TE + b"chunked", CL + N, body=BODY, line=LINE.replace(b"1.1", b"1.0")),
    "transfer-encoding with a space before the colon": raw(b"Transfer-Encoding : chunked", CL + N, body=BODY),
    "transfer-encoding with a space before the name": raw(b"X: y", b" Transfer-Encoding: chunked", CL + N, body=BODY),
    "transfer-encoding with a tab before the name": raw(b"\tTransfer-Encoding: chunked", CL + N, body=BODY),
    "transfer_encoding": raw(b"Transfer_Encoding: chunked", CL + N, body=BODY),
    "transfer-encoding folded": raw(b"Transfer-Encoding:\r\n chunked", CL + N, body=BODY),
    "transfer-encoding behind a bare LF": raw(b"X: y\nTransfer-Encoding: chunked", CL + N, body=BODY),
    "transfer-encoding behind a bare CR": raw(b"X: y\rTransfer-Encoding: chunked", CL + N, body=BODY),
    "transfer-encoding behind a NUL": raw(b"X: y\x00Transfer-Encoding: chunked", CL + N, body=BODY),
    "content-length behind a bare LF": raw(b"X: y\nContent-Length: 0", CL + N, body=BODY),
    # chunks
    **{
        f"chunk size {name}": raw(TE + b"chunked", body=size + b"\r\n" + BODY + b"\r\n0\r\n\r\n")
        for name, size in {
            "0x": b"0x%x" % len(BODY), "signed": b"+%x" % len(BODY), "negative": b"-1", "underscored": b"0_%x" % len(BODY), "spaced": b" %x" % len(BODY),
            "empty": b"", "overflowing": b"1%016x" % len(BODY), "huge": b"f" * 40, "a letter": b"g", "with a bad extension": b"%x;a\nb" % len(BODY),
            "with a NUL": b"%x\x00" % len(BODY), "with a bare CR": b"%x\r" % len(BODY),
        }.items()
    },
    "chunk size with an extension": raw(TE + b"chunked", body=b"%x;name=value\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)),
    "chunk size in capitals with zeros": raw(TE + b"chunked", body=b"000%X\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)),
    "chunk without its CRLF": raw(TE + b"chunked", body=b"%x\r\n%s0\r\n\r\n" % (len(BODY), BODY)),
    "chunk with bare LFs": raw(TE + b"chunked", body=b"%x\n%s\n0\n\n" % (len(BODY), BODY)),
    "chunk with a bare LF after its data": raw(TE + b"chunked", body=b"%x\r\n%s\n0\r\n\r\n" % (len(BODY), BODY)),
    "chunk longer than said": raw(TE + b"chunked", body=b"2\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunks and a request behind": raw(TE + b"chunked", body=CHUNKED + SMUGGLED),
    "last chunk of zeros": raw(TE + b"chunked", body=chunk(BODY, last=b"000\r\n\r\n")),
    "trailers": raw(TE + b"chunked", body=chunk(BODY, last=b"0\r\nX: y\r\n\r\n")),
    "trailers that mean to be headers": raw(TE + b"chunked", body=chunk(BODY, last=b"0\r\nContent-Length: 5\r\nAuthorization: x\r\n\r\n")),
    "a trailer without a colon": raw(TE + b"chunked", body=chunk(BODY, last=b"0\r\nXY\r\n\r\n")),
    # the request line
    **{
        f"request line {name}": raw(CL + N, body=BODY, line=line + b"\r\n")
        for name, line in {
            "HTTP/0.9": b"POST /v1/chat/completions", "HTTP/1.2": b"POST /v1/chat/completions HTTP/1.2", "HTTP/2.0": b"POST /v1/chat/completions HTTP/2.0",
            "HTTP/1.10": b"POST /v1/chat/completions HTTP/1.10", "HTTP/11": b"POST /v1/chat/completions HTTP/11", "http/1.1": b"POST /v1/chat/completions http/1.1",
            "two spaces": b"POST  /v1/chat/completions  HTTP/1.1", "tab": b"POST\t/v1/chat/completions HTTP/1.1", "leading space": b" POST /v1/chat/completions HTTP/1.1",
            "space in path": b"POST /v1/chat completions HTTP/1.1", "trailing word": b"POST /v1/chat/completions HTTP/1.1 x", "bare CR": b"POST /v1/chat/completions\rX HTTP/1.1",
            "NUL": b"POST /v1/chat\x00/completions HTTP/1.1", "lower case": b"post /v1/chat/completions HTTP/1.1", "odd method": b"P@ST /v1/chat/completions HTTP/1.1",
            "method with a colon": b"POST: /v1/chat/completions HTTP/1.1", "connect": b"CONNECT bursar.example:443 HTTP/1.1", "trace": b"TRACE /v1/chat/completions HTTP/1.1",
            "absolute, another host": b"POST http://evil.example/v1/chat/completions HTTP/1.1", "absolute, our host": b"POST http://bursar.example/v1/chat/completions HTTP/1.1",
            "absolute with a user": b"POST http://bursar.example@evil.example/v1/chat/completions HTTP/1.1", "absolute, file": b"POST file:///v1/chat/completions HTTP/1.1",
            "authority": b"POST bursar.example:80 HTTP/1.1", "asterisk": b"POST * HTTP/1.1", "no slash": b"POST v1/chat/completions HTTP/1.1",
            "fragment": b"POST /v1/chat/completions#x HTTP/1.1", "high bytes": b"POST /v1/chat/completions\xff HTTP/1.1", "backslash": b"POST \\v1\\chat\\completions HTTP/1.1",
            "dots": b"POST /v1/x/../chat/completions HTTP/1.1", "encoded dots": b"POST /v1/x/%2e%2e/chat/completions HTTP/1.1", "double slash": b"POST //v1/chat/completions HTTP/1.1",
            "double slash with a host": b"POST //evil.example/v1/chat/completions HTTP/1.1", "admin behind dots": b"POST /v1/../admin/v1/keys HTTP/1.1", "h2 preface": b"PRI * HTTP/2.0",
            "long": b"POST /v1/" + b"a" * 9000 + b" HTTP/1.1",
        }.items()
    },
    # hosts
    **{
        f"host {name}": raw(CL + N, body=BODY, host=host)
        for name, host in {
            "missing": b"", "empty": b"host:\r\n", "twice": HOST + HOST, "twice, differing": HOST + b"host: evil.example\r\n", "with a path": b"host: a/b?c\r\n",
            "with a query": b"host: a?c\r\n", "with a fragment": b"host: a#\r\n", "with a user": b"host: user@bursar.example\r\n", "with a space": b"host: a b\r\n",
            "a list": b"host: a, b\r\n", "a bad port": b"host: a:x\r\n", "a long port": b"host: a:123456\r\n", "a backslash": b"host: a\\b\r\n", "high bytes": b"host: \xff\r\n",
            "folded": b"host: a\r\n b\r\n", "before a space": b"host : bursar.example\r\n",
        }.items()
    },
    # headers
    "expect something": raw(CL + N, b"Expect: 200-ok", body=BODY),
    "expect twice": raw(CL + N, b"Expect: 100-continue", b"Expect: 100-continue", body=BODY),
    "expect 100, no body": raw(CL + N, b"Expect: 100-continue", body=BODY + SMUGGLED),
    "expect obfuscated": raw(CL + N, b"Expect: y 100-continue", body=BODY),
    "connection lists content-length": raw(CL + N, b"Connection: close, content-length", body=BODY),
    "connection lists host": raw(CL + N, b"Connection: Host", body=BODY),
    "connection lists authorization": raw(CL + N, b"Connection: keep-alive, Authorization", body=BODY),
    "connection lists transfer-encoding": raw(TE + b"chunked", b"Connection: transfer-encoding", body=CHUNKED),
    "upgrade to a websocket": raw(CL + N, b"Connection: upgrade", b"Upgrade: websocket", body=BODY + SMUGGLED),
    "upgrade to h2c": raw(CL + N, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", body=BODY),
    "upgrade to something": raw(CL + N, b"Connection: upgrade", b"Upgrade: tls/1.0", body=BODY),
    "two authorizations": raw(CL + N, AUTH.strip(), body=BODY),
    "a header without a colon": raw(CL + N, b"X", body=BODY),
    "a header without a name": raw(CL + N, b": y", body=BODY),
    "a header with a space in its name": raw(CL + N, b"X Y: z", body=BODY),
    "a header with a high byte in its name": raw(CL + N, b"X\xff: z", body=BODY),
    "a header with a NUL": raw(CL + N, b"X: a\x00b", body=BODY),
    "a header with a bare CR": raw(CL + N, b"X: a\rb", body=BODY),
    "a bare LF between headers": LINE + HOST + AUTH + JSON + b"X: y\n" + CL + N + b"\r\n\r\n" + BODY,
    "a bare LF after the request line": LINE.replace(b"\r\n", b"\n") + HOST + AUTH + JSON + CL + N + b"\r\n\r\n" + BODY,
    "bare LFs throughout": post().replace(b"\r\n", b"\n"),
    "bare CRs throughout": post().replace(b"\r\n", b"\r"),
    "an empty line ended by a bare LF": raw(CL + N)[:-2] + b"\n" + BODY,
    "a folded header": raw(CL + N, b"X: y\r\n z", body=BODY),
    "129 headers": raw(CL + N, *[b"X-%d: y" % n for n in range(129)], body=BODY),
    "101 headers": raw(CL + N, *[b"X-%d: y" % n for n in range(97)], body=BODY),
    "a long header": raw(CL + N, b"X: " + b"y" * 9000, body=BODY),
    "40 KB of headers": raw(CL + N, *[b"X-%d: %s" % (n, b"y" * 4000) for n in range(10)], body=BODY),
    # bodies
    "encoded": raw(CL + N, b"Content-Encoding: gzip", body=BODY),
    "encoded twice": raw(CL + N, b"Content-Encoding: gzip, br", body=BODY),
    # one after another
    "two requests at once": post() + SMUGGLED,
    "twenty requests at once": post() * 20,
    "a request, then garbage": post() + b"\x00\x01\x02 garbage\r\n\r\n",
    "a request, then half of one": post() + SMUGGLED[:40],
    "empty lines before": b"\r\n\r\n" + post(),
    "one empty line ended by a bare LF before": b"\n" + post(),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "redis": b"*1\r\n$4\r\nPING\r\n\r\n\r\n",
    "a response": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "nothing but CRLFs": b"\r\n" * 200,
    "only spaces": b" " * 20_000,
}  # fmt: skip
