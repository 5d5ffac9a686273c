"""What the accelerator does for itself: which interpreters load it, and that it hands on what is not as usual."""

import random

import pytest
import support

ECHO = """
    def application(environ, start_response):
        body = repr(sorted((name, value) for name, value in environ.items() if isinstance(value, str))).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        environ.clear()
        return [body]
"""


def test_an_environment_never_holds_a_value_of_another_request(serve):
    lane = serve(ECHO)
    shapes = [["HTTP_A", "HTTP_B"], ["HTTP_B", "HTTP_A"], ["HTTP_A"], ["HTTP_A", "HTTP_B", "HTTP_COOKIE"]]
    for round_ in range(40):
        for names in shapes:
            # Some values stay the same from request to request, some do not.
            variables = {name: f"{name}-{round_ // 3 if name == 'HTTP_B' else round_}" for name in names}
            seen = lane.ask("/", **variables).body
            for name in ("HTTP_A", "HTTP_B", "HTTP_COOKIE"):
                wanted = repr((name, variables[name])).encode() if name in variables else b""
                assert wanted in seen
                assert (name.encode() in seen) == (name in variables), seen


def test_values_of_any_length_are_each_their_own(serve):
    lane, chosen = serve(ECHO), random.Random(7)
    names = ["HTTP_A", "HTTP_B", "HTTP_C", "HTTP_D"]
    variables = dict.fromkeys(names, "")
    for _ in range(400):
        # Some are those of the request before, or go on where they ended.
        for name in chosen.sample(names, chosen.randrange(len(names) + 1)):
            variables[name] = chosen.choice([variables[name][:-1], variables[name] + "x", "y" * chosen.randrange(20)])
        seen = lane.ask("/", **variables).body
        for name, value in variables.items():
            assert repr((name, value)).encode() in seen, variables


def test_an_application_that_empties_its_environment_harms_no_other_request(serve):
    lane = serve(ECHO)
    first = lane.ask("/", HTTP_A="1").body
    assert b"HTTP_A" in first
    assert lane.ask("/", HTTP_A="1").body == first


def test_the_accelerator_is_loaded_where_it_should_be(start, accelerator):
    reason = start("def application(environ, start_response): pass").ready()["unaccelerated"]
    assert reason == (None if accelerator else "not asked for")


def test_a_module_that_cannot_be_loaded_leaves_the_shim(start, tmp_path):
    if not support.can_accelerate():
        pytest.skip("this interpreter does not try")
    broken = tmp_path / "daemun_accelerator.so"
    broken.write_bytes(b"no module")
    reason = start("def application(environ, start_response): pass", accelerator=str(broken)).ready()["unaccelerated"]
    assert reason.startswith("cannot be loaded: ")


def test_an_exchange_that_is_asked_for_in_the_middle_takes_the_call_over(serve):
    lane = serve("""
        def application(environ, start_response):
            environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
            start_response("200 OK", [("Content-Length", "2")])
            environ["wsgi.early_hints"]([("Link", "</b.css>; rel=preload")])
            return [b"ok"]
    """)
    answer = lane.ask("/")
    assert (answer.kinds, answer.body) == ([support.INFORM, support.INFORM, support.ANSWER], b"ok")


def test_start_response_that_was_kept_cannot_reach_a_later_request(serve):
    lane = serve("""
        kept = []

        def application(environ, start_response):
            start_response("200 OK", [("Content-Length", "2")])
            if kept:
                try:
                    kept[0]("200 OK", [("X-Late", "1")])
                except Exception:
                    return [b"no"]
            kept.append(start_response)
            return [b"ok"]
    """)
    assert [lane.ask("/").body, lane.ask("/").body] == [b"ok", b"no"]
