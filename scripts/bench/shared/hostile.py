"""Bodies and connections that are made to hurt: small ones that unfold to gigabytes, deep ones, slow ones.

What `fuzz` sends beside its rubbish. Each kind was once an attack that succeeded, or is a relative of one.
"""

import contextlib
import gzip
import io
import json
import socket
import struct
import time

JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
DEPTHS = (4, 31, 33, 100, 253, 255, 300, 990, 1_000, 1_020, 1_100, 50_000)
COMPRESSIONS = ("zstd", "gzip", "snappy", "none")


class Hostile:
    """Makes hostile requests by chance.

    Args:
        rows: good rows to begin with.
        chance: of the numbers.
    """

    def __init__(self, rows, chance):
        self.rows, self.chance = rows, chance
        self.kinds = [self.one_name, self.many_names, self.deep, self.encoded, self.csv, self.parquet, self.wide]
        self.kinds += [self.spoilt_pages, self.keys, self.notes]

    def request(self):
        """Method, path, headers and body."""
        path, kind, body = self.chance.choice(self.kinds)()
        return "POST", path, {"Content-Type": kind} if kind else {}, body

    def size(self, most):
        """A number up to `most`; small ones are as frequent as large ones."""
        return max(1, int(most ** self.chance.random()))

    def one_name(self):
        """A long name that each of many rows has."""
        name, rows = self.chance.choice("x\x01é") * self.size(300_000), self.size(10_000)
        form = self.chance.choice(["split", "inputs", "instances"])
        if form == "split":
            return "/invocations", JSON, _text({"dataframe_split": {"columns": [name], "data": [[1]] * rows}})
        return "/invocations", JSON, _text({form: {name: [1] * rows, "b": ["x"] * rows}})

    def many_names(self):
        """Names that the contract does not know, each row its own or all the same, some with what makes a log fail."""
        count, rows = self.size(3_000), self.size(100)
        names = [f"n{self.chance.randrange(10**9)}" for _ in range(count)]
        extra = dict.fromkeys(names, self.chance.choice([1, "x", None, [1], {"a": 1}, 1e300, 2**63]))
        given = [{**self.chance.choice(self.rows), **extra} for _ in range(1 if count > 500 else rows)]
        return self.chance.choice(["/predict", "/invocations"]), JSON, _text(given)

    def deep(self):
        """A value deep within others, wherever JSON is read."""
        levels = self.chance.choice(DEPTHS)
        opened, closed = self.chance.choice([("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
        value = opened * levels + self.chance.choice(["1", '"x"', "NaN", '"]["']) + closed * levels
        row = f'{{"carrier": {value}, "more": {value}}}'
        body, path = self.chance.choice(
            [
                (row, "/predict"),
                (f"[{row}]", "/predict"),
                (f'{{"instances": [{row}]}}', "/invocations"),
                (f'{{"inputs": {{"carrier": {value}}}}}', "/invocations"),
                (f'{{"dataframe_split": {{"columns": ["carrier"], "data": [[{value}]]}}}}', "/invocations"),
                (f'{{"key": {{"flight_id": {value}}}, "value": true}}', "/outcomes"),
                (f'{{"prediction_id": "a", "value": {value}}}', "/outcomes"),
                (value, "/webhook"),
            ]
        )
        return path, JSON, body.encode()

    def encoded(self):
        """A good body in another encoding, or compressed, or a compressed one that unfolds to much."""
        text = json.dumps(self.chance.choice(self.rows))
        body = self.chance.choice(
            [
                text.encode("utf-16"),
                text.encode("utf-32"),
                text.encode("utf-16-le"),
                gzip.compress(text.encode()),
                gzip.compress(b" " * self.size(10_000_000)),
            ]
        )
        return self.chance.choice(["/predict", "/invocations", "/outcomes"]), self.chance.choice([JSON, CSV]), body

    def csv(self):
        """CSV of many empty values, lines or columns; with other delimiters."""
        mark = self.chance.choice(",;\t|")
        columns, lines = self.size(3_000), self.size(3_000)
        head = mark.join([*self.rows[0], *(f"c{k}" for k in range(columns))])
        line = mark * (len(self.rows[0]) + columns - 1)
        bodies = [f"{head}\n" + f"{line}\n" * min(lines, 1 + 1_000_000 // len(line)), head + "\n" * lines]
        bodies += [f"{'x' * self.size(200_000)}\n" + "1\n" * lines]
        return "/invocations", CSV, self.chance.choice(bodies).encode()

    def parquet(self):
        """A few hundred bytes that unfold to much, in every way that the format has."""
        import pyarrow as pa

        rows, size, chance = self.size(10_000), self.size(300_000), self.chance
        once = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * size])
        column, options = chance.choice(
            [
                (once, {}),
                (once, {"store_schema": False}),
                (pa.array([0] * self.size(200_000)), {}),
                (pa.array([[0] * self.size(300)] * min(rows, 300)), {}),
                (pa.array([{"a": 1}] * min(rows, 300)), {}),
                (pa.nulls(rows, pa.string()), {}),
                (pa.array([b"x" * min(size, 3_000)] * min(rows, 300), pa.binary(min(size, 3_000))), {}),
                (
                    pa.array(["x" * min(size, 3_000)] * min(rows, 300)),
                    {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"},
                ),
            ]
        )
        names = [f"c{k}" for k in range(self.size(30))]
        options |= {"compression": chance.choice(COMPRESSIONS), "data_page_version": chance.choice(["1.0", "2.0"])}
        return "/invocations", PARQUET, _parquet(pa.table([column] * len(names), names), **options)

    def spoilt_pages(self):
        """Parquet of which the heads of pages, or the footer, say something else than what is there."""
        _, _, body = self.parquet()
        spoilt = bytearray(body[:200_000])
        for _ in range(self.chance.choice([1, 1, 2, 5])):
            at = self.chance.choice([self.chance.randrange(4, 60), self.chance.randrange(len(spoilt))]) % len(spoilt)
            spoilt[at] = self.chance.choice([0xFF, 0x80, 0x7F, spoilt[at] ^ 1, spoilt[at] ^ 0x40])
        return "/invocations", PARQUET, bytes(spoilt)

    def wide(self):
        """A long text as a value, or many values of odd kinds."""
        value = self.chance.choice(["x" * self.size(1_000_000), [0] * self.size(100_000), {"a": {}}, "\ud800" * 99])
        return "/predict", JSON, _text({**self.chance.choice(self.rows), "carrier": value})

    def keys(self):
        """Outcomes with large keys, unknown ids, numbers as text."""
        one = self.chance.choice(
            [
                {"key": {"flight_id": "x" * self.size(300_000)}, "value": True},
                {"prediction_id": "x" * self.size(300), "value": self.chance.choice(["true", "1.0", "9" * 5_000])},
            ]
        )
        return "/outcomes", JSON, _text([one] * self.size(100))

    def notes(self):
        """Rows of which each has other unknown columns that are nearly called like known ones."""
        names = [*self.rows[0]]
        rows = [
            {f"{self.chance.choice(names)[:-1]}{self.chance.randrange(10**6)}": 1 for _ in range(20)}
            for _ in range(self.size(1_000))
        ]
        return "/predict", JSON, _text(rows)


def _text(value):
    return json.dumps(value).encode()


def _parquet(table, **options):
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    if "column_encoding" in options:
        options["column_encoding"] = dict.fromkeys(table.column_names, options["column_encoding"])
    pq.write_table(table, sink, **options)
    return sink.getvalue()


class Held:
    """Connections that are held open and ask nothing, send a byte now and then, or take no answer.

    Args:
        port: of the server.
        count: how many at once.
        chance: which kind each is.
    """

    def __init__(self, port, count, chance):
        self.port, self.chance, self.open = port, chance, []
        for _ in range(count):
            self._one()

    def _one(self):
        with contextlib.suppress(OSError):
            connection = socket.create_connection(("127.0.0.1", self.port), timeout=5)
            self.open.append(connection)
            connection.settimeout(1)
            begun = self.chance.choice(
                [
                    b"",
                    b"POST /predict HTTP/1.1\r\nHos",
                    b"GET /live HTTP/1.1\r\n" + b"a: b\r\n" * 100,
                    b"POST /predict HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
                    b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 40,
                    b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n" * 500,
                    b"GET /" + b"a" * 200_000,
                ]
            )
            connection.sendall(begun)

    def drip(self):
        """One more byte of each."""
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.send(b"x")

    def close(self):
        """Let all go, at once."""
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()


def hold(port, count, seconds, chance, ask):
    """Hold connections for some seconds; gives the answers (path, status or error) that others got meanwhile."""
    held, found, until = Held(port, count, chance), [], time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            found += [(path, ask(path)) for path in ("/live", "/ready", "/metrics", "/ping")]
            held.drip()
            time.sleep(0.5)
    finally:
        held.close()
    return found
