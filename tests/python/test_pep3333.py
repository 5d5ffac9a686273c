"""The shim is a complete PEP 3333 server."""

import support

PROBES = """
import sys
def gen_app(e, sr):
    sr('404 Not Found', [('X-Gen','yes'),('Content-Type','text/plain')]); yield b'lazy'
def write_app(e, sr):
    w = sr('200 OK', [('Content-Type','text/plain')]); w(b'written '); return [b'returned']
def reason_app(e, sr):
    sr('299 My Own Reason', [('Content-Type','text/plain')]); return [b'x']
def exc_app(e, sr):
    sr('200 OK', [('Content-Type','text/plain')])
    try: 1/0
    except ZeroDivisionError: sr('500 Oops', [('Content-Type','text/plain')], sys.exc_info())
    return [b'replaced']
def twice_app(e, sr):
    sr('200 OK', [('Content-Type','text/plain')]); sr('201 Created', [('Content-Type','text/plain')]); return [b'no']
def lines_app(e, sr):
    i = e['wsgi.input']
    out = [repr(i.readline()), repr(i.readline(3)), repr(i.readline()), repr(i.read(4)), repr(i.read())]
    sr('200 OK', [('Content-Type','text/plain')]); return ['\\n'.join(out).encode()]
def iter_app(e, sr):
    r = repr([l for l in e['wsgi.input']]); sr('200 OK', [('Content-Type','text/plain')]); return [r.encode()]
def neg_app(e, sr):
    r = repr(e['wsgi.input'].read(-1)); sr('200 OK', [('Content-Type','text/plain')]); return [r.encode()]
def boom_app(e, sr):
    sr('200 OK', [('Content-Type','text/plain')])
    def g():
        yield b'part'; raise RuntimeError('mid-stream')
    return g()
def long_app(e, sr):
    sr('200 OK', [('Content-Type','text/plain'),('Content-Length','3')]); return [b'toolong']
def close_app(e, sr):
    class R:
        def __iter__(self): return iter([b'a', b'b'])
        def close(self): print('CLOSED', file=e['wsgi.errors'], flush=True)
    sr('200 OK', [('Content-Type','text/plain')]); return R()
def env_app(e, sr):
    sr('200 OK', [('Content-Type','text/plain')])
    return ['\\n'.join('%s=%r' % kv for kv in sorted(e.items(), key=lambda k: k[0])).encode()]
M = {k[:-4]: v for k, v in list(globals().items()) if k.endswith('_app')}
def application(e, sr): return M[e['PATH_INFO'].strip('/')](e, sr)
"""


def test_a_generator_may_call_start_response_at_its_first_next(serve):
    answer = serve(PROBES).ask("/gen")
    assert (answer.status, answer.body, answer.ending) == ("404 Not Found", b"lazy", support.CLEAN)
    assert ("X-Gen", "yes") in answer.headers


def test_what_is_written_comes_before_what_is_returned(serve):
    assert serve(PROBES).ask("/write").body == b"written returned"


def test_the_reason_phrase_is_kept(serve):
    assert serve(PROBES).ask("/reason").status == "299 My Own Reason"


def test_exc_info_replaces_an_answer_that_has_not_begun(serve):
    answer = serve(PROBES).ask("/exc")
    assert (answer.status, answer.body) == ("500 Oops", b"replaced")


def test_start_response_twice_is_an_error(serve):
    lane = serve(PROBES)
    answer = lane.ask("/twice")
    assert (answer.status, answer.ending) == (None, support.INVALID)
    assert "called twice" in lane.supervisor.wait_for_log("InvalidAnswer")


def test_input_is_exact(serve):
    lane = serve(PROBES)
    lines = lane.ask("/lines", method="POST", body=b"one\ntwolong\nthree\nfourfive").body.decode().split("\n")
    assert lines == [r"b'one\n'", "b'two'", r"b'long\n'", "b'thre'", r"b'e\nfourfive'"]
    assert lane.ask("/iter", method="POST", body=b"a\nb\nc").body == rb"[b'a\n', b'b\n', b'c']"
    assert lane.ask("/neg", method="POST", body=b"all of it").body == b"b'all of it'"
    assert lane.ask("/neg").body == b"b''"


def test_an_exception_in_mid_stream_is_not_a_clean_end(serve):
    lane = serve(PROBES)
    answer = lane.ask("/boom?x=1")
    assert (answer.body, answer.ending) == (b"part", support.FAILED)
    log = lane.supervisor.wait_for_log("mid-stream")
    assert f"daemun: [shop {lane.supervisor.workers[0]}] error in GET /boom?x=1\nTraceback" in log
    assert "shim.py" not in log


def test_a_body_longer_than_declared_is_left_to_the_front(serve):
    answer = serve(PROBES).ask("/long")
    assert answer.body == b"toolong"
    assert ("Content-Length", "3") in answer.headers


def test_close_is_called(serve):
    lane = serve(PROBES)
    assert lane.ask("/close").body == b"ab"
    lane.supervisor.wait_for_log("CLOSED")


def test_the_environment_is_the_request_and_nothing_of_the_process(serve):
    lane = serve(PROBES, env={"SECRET": "leak"})
    body = lane.ask("/env").body.decode()
    assert "SERVER_PROTOCOL='HTTP/1.1'" in body
    assert "wsgi.multithread=False" in body
    assert "wsgi.multiprocess=False" in body
    assert "wsgi.run_once=False" in body
    assert "wsgi.version=(1, 0)" in body
    assert "wsgi.input_terminated=True" in body
    assert "wsgi.url_scheme='http'" in body
    assert "wsgi.file_wrapper=" in body
    assert "leak" not in body


def test_threads_and_processes_are_told(serve):
    body = serve(PROBES, threads=2, processes=3).ask("/env").body.decode()
    assert "wsgi.multithread=True" in body
    assert "wsgi.multiprocess=True" in body
