"""Requests and answers on one lane."""

import os
import struct

import pytest
import support
from support import ANSWER, CREDIT, DATA, DONE, HEAD, INITIAL_CREDIT, LAID, SHELF_BLOCK, SHELF_BLOCKS, SLOTS

ECHO = """
def application(environ, start_response):
    body = environ['wsgi.input'].read()
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [environ['PATH_INFO'].encode('latin-1'), b' ', body]
"""


def test_a_batch_is_answered_in_order_and_written_together(serve):
    lane = serve(ECHO)
    lane.ask("/first")  # The very first call is slow enough to be written alone.
    ids = [1 << 6 | slot for slot in range(64)]
    lane.send(b"".join(support.request_frame(id, support.environ(f"/{id}")) for id in ids))
    answers = [lane.answer(id) for id in ids]
    assert [answer.body for answer in answers] == [f"/{id} ".encode() for id in ids]
    assert {tuple(answer.kinds) for answer in answers} == {(ANSWER,)}


def test_a_request_may_arrive_byte_by_byte(serve):
    lane = serve(ECHO)
    wire = support.request_frame(65, support.environ("/slow", "POST", b"body"), 1, b"body")
    for place in range(len(wire)):
        lane.send(wire[place : place + 1])
    assert lane.answer(65).body == b"/slow body"


def test_a_body_in_a_file_is_the_input(serve, tmp_path):
    lane = serve(ECHO)
    content = os.urandom(200_000)
    (tmp_path / "spool").write_bytes(content)
    for request in (65, 66):
        with (tmp_path / "spool").open("rb") as file:
            tail = struct.pack("<Q", len(content))
            lane.send(support.request_frame(request, support.environ("/f", "POST"), 2, tail), [file.fileno()])
        assert lane.answer(request).body == b"/f " + content


def test_a_body_in_the_arena_is_the_input(serve):
    lane = serve(ECHO, arena=1 << 20)
    content = os.urandom(100_000)
    lane.supervisor.front.arena[5000:105_000] = content
    lane.send(support.request_frame(65, support.environ("/a", "POST"), 3, struct.pack("<II", 5000, len(content))))
    assert lane.answer(65).body == b"/a " + content


def test_a_streamed_body_is_read_as_it_comes_while_other_requests_wait(serve):
    lane = serve(
        """
        def application(environ, start_response):
            write = start_response('200 OK', [])
            for line in environ['wsgi.input']:
                write(b'got ' + line)
            return []
        """
    )
    block = support.environ("/", "POST")
    lane.send(support.request_frame(65, block, 4) + support.request_frame(66, block, 4))
    lane.send(support.frame(support.BODY, 65, b"one\ntw") + support.frame(support.BODY, 66, b"other\n"))
    kind, request, head = lane.read()
    assert (kind, request, head[4:]) == (HEAD, 65, b"200 OK")
    assert lane.read() == (DATA, 65, b"got one\n")
    lane.send(
        support.frame(support.BODY, 66, b"") + support.frame(support.BODY, 65, b"o") + support.frame(support.BODY, 65)
    )
    assert lane.answer(65).body == b"got two"
    assert lane.answer(66).body == b"got other\n"


def test_what_is_read_of_a_streamed_body_gives_credit_back(serve):
    lane = serve(ECHO.replace("[environ", "[str(len(body)).encode()] or [environ"))
    lane.send(support.request_frame(65, support.environ("/", "POST"), 4))
    piece, given = b"x" * 50_000, 0
    for _ in range(4):
        lane.send(support.frame(support.BODY, 65, piece))
    while given < 150_000:
        kind, request, payload = lane.read()
        assert (kind, request) == (CREDIT, 65)
        given += struct.unpack("<I", payload)[0]
    lane.send(support.frame(support.BODY, 65))
    kind, _, payload = lane.read()
    while kind == CREDIT:
        kind, _, payload = lane.read()
    assert kind == ANSWER
    assert payload.endswith(b"200000")


def test_a_streamed_body_that_is_cut_raises_in_the_application(serve):
    lane = serve(
        """
        def application(environ, start_response):
            write = start_response('200 OK', [])
            try:
                write(b'begun')
                environ['wsgi.input'].read()
            except OSError:
                print('RAISED')
                raise
        """
    )
    lane.send(support.request_frame(65, support.environ("/", "POST"), 4))
    kind, request, head = lane.read()
    assert (kind, request, head[4:]) == (HEAD, 65, b"200 OK")
    lane.send(support.frame(support.BODY, 65, b"half") + support.frame(support.CANCEL, 65))
    answer = lane.answer(65)
    assert (answer.body, answer.ending) == (b"begun", support.CUT)
    lane.supervisor.wait_for_log("RAISED")
    assert "Traceback" not in lane.supervisor.log()


def test_a_revoked_request_is_skipped_and_never_called(serve):
    lane = serve(
        "calls = []\n" + ECHO.replace("):\n", "):\n    calls.append(1)\n").replace("b' '", "b'%d' % len(calls)")
    )
    lane.page[support.SLOTS + 5] = 1
    assert lane.answer(lane.request("/", request=1 << 6 | 5)).ending == "skipped"
    lane.page[support.SLOTS + 5] = 0
    assert lane.answer(lane.request("/", request=2 << 6 | 5)).body == b"/1"


def test_started_is_stored_before_the_application_is_called(serve):
    lane = serve(
        """
        def application(environ, start_response):
            start_response('200 OK', [])
            yield b'called'
            environ['wsgi.input'].read()
        """
    )
    lane.send(support.request_frame(1 << 6 | 9, support.environ("/", "POST"), 4))
    assert lane.read()[0] == HEAD
    assert lane.page[9] == 1
    lane.send(support.frame(support.BODY, 1 << 6 | 9))
    lane.answer(1 << 6 | 9)


def test_without_a_page_started_is_a_frame(serve):
    answer = serve(ECHO, page=0).ask("/x")
    assert answer.kinds == [support.STARTED, ANSWER]


def test_a_cancelled_request_that_waits_is_skipped(serve):
    lane = serve(ECHO)
    lane.send(
        support.request_frame(65, support.environ("/a", "POST"), 4) + support.request_frame(66, support.environ("/b"))
    )
    lane.send(support.frame(support.CANCEL, 66) + support.frame(support.BODY, 65))
    assert lane.answer(65).body == b"/a "
    assert lane.answer(66).ending == "skipped"


ENDLESS = """
import sys
class Endless:
    def __iter__(self): return self
    def __next__(self): return b'x' * 10000
    def close(self): sys.stderr.write('CLOSED\\n')
def application(environ, start_response):
    start_response('200 OK', [])
    return Endless()
"""


def test_a_stream_waits_when_its_credit_is_used_up(serve):
    lane = serve(ENDLESS)
    request = lane.request("/")
    got = 0
    assert lane.read()[0] == HEAD
    while got < INITIAL_CREDIT:
        kind, _, payload = lane.read()
        assert kind == DATA
        got += len(payload)
    assert got == INITIAL_CREDIT
    assert lane.has_nothing()
    lane.send(support.frame(CREDIT, request, struct.pack("<I", 5)))
    assert len(lane.read()[2]) == 5
    assert lane.has_nothing()
    lane.send(support.frame(support.CANCEL, request))
    assert lane.read() == (DONE, request, bytes([support.CUT]))
    lane.supervisor.wait_for_log("CLOSED")
    assert "Traceback" not in lane.supervisor.log()


def test_cancel_ends_a_running_stream(serve):
    lane = serve(ENDLESS.replace("10000", "1"))
    request = lane.request("/")
    for _ in range(100):
        lane.read()
    lane.send(support.frame(support.CANCEL, request))
    kind = DATA
    while kind == DATA:
        kind, _, payload = lane.read()
    assert (kind, payload) == (DONE, bytes([support.CUT]))
    lane.supervisor.wait_for_log("CLOSED")


def test_pieces_are_sent_as_they_come(serve):
    lane = serve(
        """
        def application(environ, start_response):
            start_response('200 OK', [])
            yield b''
            yield b'one'
            environ['wsgi.input'].readline()
            yield b'two'
        """
    )
    lane.send(support.request_frame(65, support.environ("/", "POST"), 4))
    kind, request, head = lane.read()
    assert (kind, request, head[4:]) == (HEAD, 65, b"200 OK")
    assert lane.read() == (DATA, 65, b"one")
    # It asks for the body when it is read first, and not before.
    assert lane.read() == (support.CREDIT, 65, struct.pack("<I", 256 * 1024))
    assert lane.has_nothing()
    lane.send(support.frame(support.BODY, 65))
    assert lane.answer(65).body == b"two"


def test_an_iterable_of_its_declared_length_is_one_frame(serve):
    lane = serve(
        """
        def application(environ, start_response):
            start_response('200 OK', [('content-length', '5')])
            yield b'whole'
            print('after')
        """
    )
    assert lane.ask("/").kinds == [ANSWER]
    lane.supervisor.wait_for_log("after")


def test_a_large_list_goes_in_pieces_with_its_length(serve):
    lane = serve("def application(e, s):\n    s('200 OK', [('X', 'y')]); return [b'ab' * 400000]")
    answer = lane.ask("/")
    assert answer.body == b"ab" * 400_000
    assert answer.headers == [("X", "y"), ("Content-Length", "800000")]
    assert max(map(len, answer.pieces)) <= 65536


def test_an_empty_answer_has_a_head(serve):
    lane = serve("def application(e, s):\n    s('304 Not Modified', []); return iter(()) if e['QUERY_STRING'] else ()")
    for path in ("/", "/?iterator"):
        answer = lane.ask(path)
        assert (answer.status, answer.body, answer.kinds) == ("304 Not Modified", b"", [ANSWER])


@pytest.mark.parametrize(
    ("response", "words"),
    [
        ("s('200', [])", "status must be"),
        ("s(200, [])", "status must be"),
        ("s('100 Continue', [])", "status must be"),
        ("s('200 OK\\r\\nX: y', [])", "control characters"),
        ("s('200 OK', [('X', 'a\\nb')])", "control characters"),
        ("s('200 OK', [('X', 'a\\0b')])", "control characters"),
        ("s('200 OK', [('X', 1)])", "list of pairs"),
        ("s('200 OK', [('X', b'1')])", "list of pairs"),
        ("s('200 OK', [('X', '\\u20ac')])", "list of pairs"),
        ("s('200 OK', [('X', 'y', 'z')])", "list of pairs"),
        ("s('200 OK', None)", "list of pairs"),
        ("s('200 OK', [('X y', 'z')])", "not a header name"),
        ("s('200 OK', [('', 'z')])", "not a header name"),
        ("s('200 OK', [('Transfer-Encoding', 'chunked')])", "concerns the connection"),
        ("None", "before start_response"),
    ],
)
def test_a_head_that_breaks_the_rules_is_refused_and_named(serve, response, words):
    lane = serve(f"def application(e, s):\n    {response}\n    return [b'x']")
    answer = lane.ask("/")
    assert (answer.status, answer.ending) == (None, support.INVALID)
    lane.supervisor.wait_for_log(words)


@pytest.mark.parametrize("result", ["['text']", "iter(['text'])", "iter([1])", "[None]"])
def test_a_body_that_is_not_bytes_is_refused(serve, result):
    lane = serve(f"def application(e, s):\n    s('200 OK', []); return {result}")
    answer = lane.ask("/")
    assert (answer.status, answer.ending) == (None, support.INVALID)
    lane.supervisor.wait_for_log("bytes")


def test_a_result_that_cannot_be_iterated_is_a_failure(serve):
    assert serve("def application(e, s):\n    s('200 OK', []); return None").ask("/").ending == support.FAILED


def test_latin_1_and_tabs_may_stand_in_a_header(serve):
    lane = serve("def application(e, s):\n    s('200 OK', [('X', 'caf\\xe9\\xa0\\t|')]); return []")
    assert lane.ask("/").headers == [("X", "caf\xe9\xa0\t|")]


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()", "ValueError('no')", "GeneratorExit()"])
def test_no_exception_ends_the_worker(serve, error):
    lane = serve(f"def application(e, s):\n    if e['QUERY_STRING']: raise {error}\n    s('200 OK', []); return []")
    assert lane.ask("/?x").ending == support.FAILED
    assert lane.ask("/").status == "200 OK"
    assert "error in GET /?x\nTraceback" in lane.supervisor.log()


def test_exc_info_after_the_head_was_sent_raises_it_again(serve):
    lane = serve(
        """
        import sys
        def application(e, s):
            s('200 OK', [])
            yield b'part'
            try: {}['missing']
            except KeyError: s('500 Oops', [], sys.exc_info())
            yield b'never'
        """
    )
    answer = lane.ask("/")
    assert (answer.body, answer.ending) == (b"part", support.FAILED)
    assert "KeyError: 'missing'" in lane.supervisor.log()


def test_close_is_called_when_the_iteration_fails(serve):
    lane = serve(
        """
        class Result:
            def __iter__(self): raise RuntimeError('in iter')
            def close(self): print('CLOSED')
        def application(e, s):
            s('200 OK', []); return Result()
        """
    )
    assert lane.ask("/").ending == support.FAILED
    lane.supervisor.wait_for_log("CLOSED")


def test_a_client_cannot_write_lines_into_the_log(serve):
    lane = serve("def application(e, s): raise RuntimeError('x')")
    lane.ask("/", REQUEST_URI="/\nforged\x1b[2J")
    assert "error in GET /\\nforged\\x1b[2J\n" in lane.supervisor.log()


FILES = """
import io, gzip, os
def application(environ, start_response):
    path, kind = 'data.bin', environ['PATH_INFO'][1:]
    headers = [('Content-Length', '100')] if kind == 'short' else []
    start_response('200 OK', headers)
    if kind == 'memory': file = io.BytesIO(b'in memory')
    elif kind == 'gzip':
        gzip.open('z', 'wb').write(b'unpacked'); file = gzip.open('z', 'rb')
    elif kind == 'pipe':
        r, w = os.pipe(); os.write(w, b'through a pipe'); os.close(w); file = os.fdopen(r, 'rb')
    elif kind == 'raw': file = open(path, 'rb', buffering=0)
    else: file = open(path, 'rb')
    if kind == 'middle': file.read(10)
    return environ['wsgi.file_wrapper'](file, 4096)
"""


@pytest.mark.parametrize(
    ("kind", "range"), [("whole", (0, 5000)), ("raw", (0, 5000)), ("middle", (10, 4990)), ("short", (0, 100))]
)
def test_a_regular_file_is_handed_over(serve, tmp_path, kind, range):
    (tmp_path / "data.bin").write_bytes(bytes(5000))
    answer = serve(FILES).ask("/" + kind)
    assert answer.kinds == [HEAD, support.FILE, DONE]
    offset, length, descriptor = answer.file
    assert (offset, length) == range
    assert os.fstat(descriptor).st_size == 5000
    os.close(descriptor)


@pytest.mark.parametrize(
    ("kind", "body"), [("memory", b"in memory"), ("gzip", b"unpacked"), ("pipe", b"through a pipe")]
)
def test_what_only_looks_like_a_file_is_read(serve, kind, body):
    source = FILES.replace(
        "gzip.open('z', 'wb').write(b'unpacked');", "f = gzip.open('z', 'wb'); f.write(b'unpacked'); f.close();"
    )
    assert serve(source).ask("/" + kind).body == body


def test_descriptors_do_not_pile_up(serve, tmp_path):
    (tmp_path / "data.bin").write_bytes(bytes(5000))
    lane = serve(FILES)
    folder = f"/proc/{lane.supervisor.workers[0]}/fd"
    for turn in range(20):
        os.close(lane.ask("/whole").file[2])
        with (tmp_path / "data.bin").open("rb") as file:
            request = lane.next_id()
            lane.page[support.SLOTS + (request & 63)] = turn % 2
            block = support.environ("/memory", "POST")
            lane.send(support.request_frame(request, block, 2, struct.pack("<Q", 5000)), [file.fileno()])
        lane.answer(request)
        if turn == 1:
            before = len(os.listdir(folder))
    assert len(os.listdir(folder)) <= before


def test_the_longest_mount_at_a_segment_answers(serve):
    lane = serve(
        """
        def show(name):
            def application(e, s):
                s('200 OK', []); return [('%s %s %s' % (name, e['SCRIPT_NAME'], e['PATH_INFO'])).encode()]
            return application
        root, wiki, deep = show('root'), show('wiki'), show('deep')
        """,
        mounts=[["", "app:root"], ["/wiki", "app:wiki"], ["/wiki/deep", "app:deep"]],
    )
    assert lane.ask("/").body == b"root  /"
    assert lane.ask("/wiki").body == b"wiki /wiki "
    assert lane.ask("/wiki/page").body == b"wiki /wiki /page"
    assert lane.ask("/wikipedia").body == b"root  /wikipedia"
    assert lane.ask("/wiki/deep/x").body == b"deep /wiki/deep /x"


def test_middleware_stands_around_the_application_outermost_first(serve):
    lane = serve(
        """
        def mark(letter):
            def factory(inner):
                return lambda e, s: [letter] + list(inner(e, s)) + [letter]
            return factory
        outer, inner = mark(b'o'), mark(b'i')
        def application(e, s):
            s('200 OK', []); return [b'.']
        """,
        middleware=["app:outer", "app:inner"],
    )
    assert lane.ask("/").body == b"oi.io"


def test_a_child_that_the_application_forked_never_speaks_on_the_lane(serve):
    lane = serve(
        """
        import os
        def application(e, s):
            if e['PATH_INFO'] == '/fork':
                pid = os.fork()
                if pid == 0: open('child', 'w').close()
                else: os.waitpid(pid, 0)
            elif e['PATH_INFO'] == '/raise':
                pid = os.fork()
                if pid == 0: raise RuntimeError('in the child')
                os.waitpid(pid, 0)
            s('200 OK', [])
            return [b'parent']
        """
    )
    for path in ("/fork", "/raise", "/"):
        assert lane.ask(path).body == b"parent"
    assert lane.has_nothing()
    assert (lane.supervisor.directory / "child").exists()
    lane.supervisor.wait_for_log("ended a forked child")


STREAM = """
def application(environ, start_response):
    size, count = map(int, environ['QUERY_STRING'].split('x'))
    start_response('200 OK', [])
    for number in range(count):
        yield bytes([number]) * size
"""


@pytest.mark.parametrize(("size", "kinds"), [(16383, {DATA}), (16384, {LAID}), (65536, {LAID}), (65537, {LAID, DATA})])
def test_a_large_piece_lies_on_the_shelf_and_a_small_one_comes_down_the_lane(serve, size, kinds):
    answer = serve(STREAM).ask(f"/?{size}x40")
    assert answer.body == b"".join(bytes([number]) * size for number in range(40))
    assert set(answer.kinds) == {HEAD, DONE, *kinds}


def test_each_thread_has_a_shelf_of_its_own(serve):
    first = serve(STREAM, threads=3)
    lanes = [first.lanes[thread] for thread in range(3)]
    requests = [lane.request(f"/?{20_000 + lane.thread}x5") for lane in lanes]
    for lane, request in zip(lanes, requests, strict=True):
        answer = lane.answer(request)
        assert answer.body == b"".join(bytes([number]) * (20_000 + lane.thread) for number in range(5))
        assert set(answer.kinds) == {HEAD, LAID, DONE}


def test_without_a_shelf_every_piece_comes_down_the_lane(serve):
    answer = serve(STREAM, shelves=0).ask("/?65536x20")
    assert answer.kinds == [HEAD, *[DATA] * 20, DONE]
    assert answer.body == b"".join(bytes([number]) * 65536 for number in range(20))


def test_a_piece_that_finds_no_room_comes_down_the_lane_and_lies_there_again_when_there_is_some(serve):
    lane = serve(STREAM)
    first = lane.page_start + 2 * SLOTS
    lane.page[first : first + SHELF_BLOCKS] = b"\1" * SHELF_BLOCKS
    assert lane.ask("/?30000x3").kinds == [HEAD, DATA, DATA, DATA, DONE]
    # Eight blocks in a row, behind seven that are not enough.
    lane.page[first + 3 : first + 10] = bytes(7)
    lane.page[first + 20 : first + 28] = bytes(8)
    request = lane.request("/?30000x3")
    laid = [(kind, payload) for kind, _, payload in [lane.read() for _ in range(5)] if kind in (DATA, LAID)]
    assert [kind for kind, _ in laid] == [LAID, DATA, DATA]
    assert struct.unpack("<II", laid[0][1]) == (20 * SHELF_BLOCK, 30_000)
    assert lane.take_laid(laid[0][1]) == bytes(30_000)
    lane.page[lane.page_start + (request & 63)] = 0
    lane.page[first : first + SHELF_BLOCKS] = bytes(SHELF_BLOCKS)
    assert lane.ask("/?30000x3").kinds == [HEAD, LAID, LAID, LAID, DONE]


def test_a_piece_that_is_larger_than_the_credit_is_laid_as_far_as_that_goes(serve):
    lane = serve(STREAM)
    request = lane.request("/?60000x5")
    frames = [lane.read() for _ in range(6)]
    assert [kind for kind, _, _ in frames] == [HEAD, LAID, LAID, LAID, LAID, LAID]
    sizes = [struct.unpack("<II", payload)[1] for _, _, payload in frames[1:]]
    assert sizes == [60_000, 60_000, 60_000, 60_000, INITIAL_CREDIT - 240_000]
    assert lane.has_nothing()
    for _, _, payload in frames[1:]:
        lane.take_laid(payload)
    lane.send(support.frame(CREDIT, request, struct.pack("<I", 60_000)))
    assert lane.answer(request).body == bytes([4]) * (300_000 - INITIAL_CREDIT)
