"""What a kept worker promises, in every language of the SDK: real workers, and the peer that wootz is to them."""

import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor

from peer import PARAMS, STDIN, Worker, alive, begin, environment, eventually, record, release, request, stream, variables

WORKERS = pathlib.Path(__file__).parent / "workers"
EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
PHP, PYTHON, NODE = os.environ.get("PHP", "php"), os.environ.get("PYTHON", sys.executable), os.environ.get("NODE", "node")
MEBIBYTE = b"0123456789abcdef" * 65536


class Contract:
    """The tests of all languages."""

    command = []
    isolated = False
    many_calls = 2000
    stderr_of_validate = True

    def setUp(self):
        self.workers = []
        self.worker = self.start_worker()

    def tearDown(self):
        for worker in self.workers:
            worker.stop()

    def start_worker(self, *arguments):
        worker = Worker([*self.command, *arguments])
        self.workers.append(worker)
        return worker

    def assertReply(self, answer, text):
        body = answer.body if isinstance(text, bytes) else answer.text
        self.assertEqual((body, answer.ended, answer.status, answer.protocol_status, answer.http_status), (text, True, 0, 0, 200), answer.stderr)

    def assertFailed(self, answer, reason):
        """The peer can tell: by the HTTP status, or by the exit status where the reply had begun already."""
        told = (answer.ended, answer.http_status, answer.status == 0)
        self.assertEqual(told, (True, 200, False) if answer.body else (True, 500, True), answer.stdout)
        self.assertIn(reason, answer.stderr.decode())

    # the reply

    def test_reply_is_what_was_printed_then_what_was_returned(self):
        self.assertReply(self.worker.call("/print"), "printed, returned")
        self.assertReply(self.worker.call("/number"), "42")
        self.assertReply(self.worker.call("/parts"), "one two 3")

    def test_nothing_printed_and_nothing_returned_is_an_empty_reply(self):
        answer = self.worker.call("/nothing")
        self.assertReply(answer, "")
        self.assertTrue(answer.stdout.endswith(b"\r\n\r\n"))

    def test_message_arrives_byte_for_byte(self):
        for message in (b"", b"\0\xff\xfe", bytes(range(256)) * 7, MEBIBYTE):
            self.assertReply(self.worker.call("/echo", message), message)

    def test_request_cut_at_any_byte_is_read_whole(self):
        data = request("/echo", b"in pieces", HTTP_LONG="x" * 300)
        for at in range(1, len(data), 7):
            exchange = self.worker.raw(data[:at])
            exchange.socket.sendall(data[at:])
            self.assertReply(exchange.finish(), "in pieces")

    def test_padding_and_small_records_are_read(self):
        params = variables(environment("/echo", b"x", CONTENT_LENGTH="9"))
        data = begin(flags=1) + stream(PARAMS, params, piece=5, padding=3) + stream(STDIN, b"in pieces", piece=1, padding=7)
        self.assertReply(self.worker.raw(data).finish(), "in pieces")

    def test_one_mebibyte_is_a_reply(self):
        self.assertReply(self.worker.call("/big"), MEBIBYTE)
        self.assertReply(self.worker.call("/chunks"), MEBIBYTE)

    def test_flushed_part_arrives_while_the_call_runs(self):
        fifo = self.worker.fifo("pipe")
        exchange = self.worker.start(f"/stream?fifo={fifo}")
        exchange.read_until(b"first\n")
        release(fifo)
        self.assertReply(exchange.finish(), "first\nsecond\n")

    # what the call is told

    def test_connection_tells_who_and_what(self):
        answer = self.worker.call("/connection?a=1", b"hello", user="42", cookie="a=1; b=%C3%BC+x; a=2")
        told = json.loads(answer.text)
        names = {name.lower(): value for name, value in told["headers"].items()}
        self.assertEqual([told[name] for name in ("id", "user", "event", "uri", "ip", "port", "message")], ["c0ffee", "42", "message", "/connection?a=1", "192.0.2.7", 50123, "hello"])
        self.assertEqual(told["cookies"], {"a": "1", "b": "ü+x"})
        self.assertEqual(names["user-agent"], "a browser")
        self.assertIsNone(json.loads(self.worker.call("/connection").text)["user"])

    def test_variables_of_any_length_arrive(self):
        long = {"SHORT": "", "HTTP_127": "a" * 127, "HTTP_128": "b" * 128, "HTTP_LONG": "c" * 70000, "HTTP_" + "N" * 200: "name"}
        told = json.loads(self.worker.call("/env", **long).text)
        self.assertEqual({name: told[name] for name in long}, long)

    def test_one_call_sees_nothing_of_another(self):
        self.worker.call("/connection", user="alice", cookie="secret=1", HTTP_X_SECRET="1")
        told = json.loads(self.worker.call("/env").text)
        self.assertFalse({"REMOTE_USER", "HTTP_COOKIE", "HTTP_X_SECRET"} & set(told))

    # failures

    def test_status_is_told(self):
        answer = self.worker.call("/status?is=404")
        self.assertEqual((answer.http_status, answer.text, answer.status), (404, "with a status", 0))
        self.assertReply(self.worker.call("/print"), "printed, returned")

    def test_exception_is_a_failed_call_and_the_next_one_is_answered(self):
        answer = self.worker.call("/throw")
        self.assertFailed(answer, "thrown on purpose")
        self.assertEqual(answer.body, b"")
        self.assertReply(self.worker.call("/print"), "printed, returned")

    def test_exception_after_a_part_was_sent_is_a_failed_call(self):
        answer = self.worker.call("/late-throw")
        self.assertFailed(answer, "thrown on purpose")
        self.assertIn("half a reply", answer.text)

    def test_reply_that_is_no_text_is_a_failed_call(self):
        self.assertFailed(self.worker.call("/wrong"), "a reply is text")

    # validate

    def test_validate_says_who_connects(self):
        for who, body in (("alice", "alice"), ("number", "7"), ("zero", ""), ("nobody", "")):
            self.assertReply(self.worker.call(event="validate", cookie=f"who={who}"), body)
        answer = self.worker.call(event="validate", cookie="who=array")
        self.assertEqual(json.loads(answer.text), {"user": "bob", "expires": 60})

    def test_validate_refuses_with_403(self):
        answer = self.worker.call(event="validate", cookie="who=refused")
        self.assertEqual((answer.http_status, answer.body, answer.ended), (403, b"", True))

    def test_validate_that_breaks_or_answers_true_lets_nobody_in(self):
        for who, reason in (("throw", "no database"), ("true", "a reply is text")):
            answer = self.worker.call(event="validate", cookie=f"who={who}")
            self.assertFailed(answer, reason)
            self.assertEqual(answer.body, b"")

    def test_what_validate_prints_is_for_the_log(self):
        answer = self.worker.call(event="validate", cookie="who=alice")
        seen = answer.stderr.decode() if self.stderr_of_validate else eventually(lambda: self.worker.log, "it logs")
        self.assertIn("asked about 192.0.2.7:50123", seen)

    def test_worker_without_validate_lets_nobody_in(self):
        answer = self.start_worker("without-validate").call(event="validate")
        self.assertFailed(answer, "identity.provider")
        self.assertEqual(answer.body, b"")

    # peers that misbehave

    def test_what_is_no_whole_request_is_never_executed(self):
        data = request("/counter", b"12345")
        params = stream(PARAMS, variables(environment("/counter", CONTENT_LENGTH="3")))
        broken = [
            b"GET / HTTP/1.1\r\n\r\n", data[:-9], data[:30], b"\1", begin(role=2) + params + record(STDIN), record(PARAMS), record(99, bytes(8)), begin() + begin(),
            begin() + record(PARAMS, b"\x7f") + record(PARAMS) + record(STDIN), begin() + record(PARAMS, b"\xff\xff\xff\xff\x01") + record(PARAMS) + record(STDIN),
            begin() + params + record(STDIN, b"four") + record(STDIN), begin() + params + record(STDIN, b"abc", request=2) + record(STDIN),
            begin() + record(PARAMS, version=2),
        ]
        for data in broken:
            exchange = self.worker.raw(data)
            exchange.socket.shutdown(socket.SHUT_WR)
            answer = exchange.finish()
            self.assertEqual((answer.stdout, answer.ended), (b"", False), data)
        self.assertIn("no FastCGI request", self.worker.log)
        self.assertReply(self.worker.call("/counter"), "1")

    def test_peer_that_leaves_before_the_end_harms_nobody(self):
        for _ in range(20):
            exchange = self.worker.start("/big")
            exchange.read_record()
            exchange.close()
        self.worker.raw(b"").close()
        self.assertReply(self.worker.call("/print"), "printed, returned")

    # the worker

    def test_term_finishes_the_running_call_and_ends_the_worker(self):
        fifo = self.worker.fifo("pipe")
        exchange = self.worker.start(f"/hold?fifo={fifo}")
        exchange.read_until(b"\n")
        self.worker.terminate()
        release(fifo)
        answer = exchange.finish()
        self.assertTrue(answer.text.endswith("\nreleased") and answer.ended and answer.status == 0, answer.stderr)
        self.assertEqual(self.worker.wait(), 0)
        self.assertTrue((self.worker.home / "ended").exists(), "run() returned, and the worker's own end ran")

    def test_term_ends_an_idle_worker(self):
        self.assertReply(self.worker.call("/print"), "printed, returned")
        self.worker.terminate()
        self.assertEqual(self.worker.wait(), 0)

    def test_what_the_worker_prints_while_it_starts_goes_to_the_log_and_into_no_reply(self):
        self.assertReply(self.worker.call("/print"), "printed, returned")
        self.worker.terminate()
        self.worker.wait()
        self.assertEqual(self.worker.log.count("the worker prints while it starts"), 1)

    def test_program_started_by_a_call_does_not_hold_the_answer_open(self):
        answer = self.worker.call("/background")
        self.assertTrue(answer.ended)
        os.kill(int(answer.text), signal.SIGKILL)

    def test_many_calls_leave_no_descriptor_no_zombie_and_no_memory(self):
        def calls(count):
            for number in range(count):
                message = str(number).encode()
                answer = self.worker.call("/echo", message)
                self.assertEqual((answer.body, answer.status), (message, 0))

        calls(200)
        before, memory = len(self.worker.descriptors()), self.worker.memory_kib()
        calls(self.many_calls)
        eventually(lambda: len(self.worker.descriptors()) <= before, "all descriptors are closed")
        eventually(lambda: not self.worker.children(), "no child is left")
        self.assertLess(self.worker.memory_kib() - memory, self.growth_kib)

    growth_kib = 512

    def test_program_that_wootz_did_not_start_says_so(self):
        done = subprocess.run([*self.command], stdin=subprocess.DEVNULL, capture_output=True, text=True, env={**os.environ, "TEST_HOME": str(self.worker.home)}, timeout=20, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("standard input is no listening socket", done.stderr + done.stdout)


class Exiting:
    """Languages whose calls may end themselves."""

    def test_exit_in_the_middle_ends_the_call_with_what_was_printed(self):
        self.assertReply(self.worker.call("/exit"), "until here")

    def test_exit_in_validate_lets_nobody_in(self):
        answer = self.worker.call(event="validate", cookie="who=exit")
        self.assertEqual((answer.http_status, answer.body, answer.ended), (403, b"", True))


class Isolated:
    """What a process per call promises."""

    isolated = True

    def test_call_changes_nothing_for_the_next(self):
        self.assertEqual([self.worker.call("/counter").text for _ in range(3)], ["1", "1", "1"])
        pids = {self.worker.call("/pid").text for _ in range(3)} | {str(self.worker.pid)}
        self.assertEqual(len(pids), 4)

    def test_call_inherits_neither_the_listening_socket_nor_its_path(self):
        told = json.loads(self.worker.call("/inherited").text)
        self.assertEqual(told, {"sockets": 1, "listen": False, "input": "/dev/null"})

    def test_calls_draw_different_random_numbers(self):
        self.assertEqual(len({self.worker.call("/random").text for _ in range(4)}), 4)

    def test_end_of_a_call_runs_nothing_of_the_worker(self):
        for uri in ("/print", "/exit", "/throw", "/die", *self.fatal):
            self.assertTrue(self.worker.call(uri).ended, uri)
        fifo = self.worker.fifo("pipe")
        exchange = self.worker.start(f"/hold?fifo={fifo}")
        pid = int(exchange.read_until(b"\n").text)
        os.kill(self.worker.pid, signal.SIGSTOP)  # so that the call ends by itself, not by the worker
        release(fifo)
        eventually(lambda: not alive(pid), "the call has ended")
        os.kill(self.worker.pid, signal.SIGCONT)
        self.assertTrue(exchange.finish().ended)
        self.assertEqual(sorted(os.listdir(self.worker.home)), ["log", "pipe", "worker.sock"])
        self.worker.terminate()
        self.worker.wait()
        self.assertEqual((self.worker.home / "shutdown").read_text(), f"{self.worker.pid}\n")

    fatal = ()

    def test_call_that_crashes_is_closed_without_an_end_and_reported(self):
        answer = self.worker.call("/crash")
        self.assertEqual((answer.stdout, answer.ended), (b"", False))
        self.assertIn("11", eventually(lambda: "wootz: a call" in self.worker.log and self.worker.log, "it is logged"))
        self.assertReply(self.worker.call("/print"), "printed, returned")

    def test_call_whose_browser_is_gone_is_ended(self):
        fifo = self.worker.fifo("pipe")
        exchange = self.worker.start(f"/hold?fifo={fifo}")
        pid = int(exchange.read_until(b"\n").text)
        exchange.close()
        eventually(lambda: not alive(pid), "the call is ended")
        self.assertReply(self.worker.call("/print"), "printed, returned")
        eventually(lambda: not self.worker.children(), "no child is left")

    def test_term_to_the_group_does_not_tear_the_running_call(self):
        fifo = self.worker.fifo("pipe")
        exchange = self.worker.start(f"/hold?fifo={fifo}")
        pid = int(exchange.read_until(b"\n").text)
        os.kill(pid, signal.SIGTERM)
        self.worker.terminate()
        release(fifo)
        self.assertTrue(exchange.finish().text.endswith("\nreleased"))
        self.assertEqual(self.worker.wait(), 0)


class Shared:
    """What one process for all calls promises."""

    def test_calls_share_the_process(self):
        self.assertEqual([self.worker.call("/counter").text for _ in range(3)], ["1", "2", "3"])
        self.assertEqual(self.worker.call("/pid").text, str(self.worker.pid))


class PhpContract(Exiting, Contract):
    def test_fatal_error_is_a_failed_call(self):
        answer = self.worker.call("/fatal")
        self.assertFailed(answer, "Cannot declare class Guard")
        self.assertEqual(answer.body, b"")

    def test_memory_used_up_is_a_failed_call(self):
        self.assertFailed(self.worker.call("/memory"), "Allowed memory size")

    def test_die_says_its_last_words(self):
        self.assertReply(self.worker.call("/die"), "last words")

    def test_buffers_that_the_application_left_are_sent_in_order_and_cleaned_ones_are_not(self):
        self.assertReply(self.worker.call("/buffers"), "inner most end")
        self.assertReply(self.worker.call("/clean"), "kept")

    def test_superglobals_are_those_of_the_call(self):
        self.worker.call("/count", cookie="PHPSESSID=abcdefghij0123456789abcdef")
        told = json.loads(self.worker.call("/superglobals?a=1&b[]=2", user="42", cookie="x=1; list[]=2").text)
        self.assertEqual((told["get"], told["post"], told["cookie"], told["session"]), ({"a": "1", "b": ["2"]}, [], {"x": "1", "list": ["2"]}, None))
        self.assertEqual((told["request"], told["server"]["REMOTE_USER"]), (told["get"], "42"))
        self.assertTrue(told["server"]["SCRIPT_FILENAME"].endswith("workers/worker.php"))
        self.assertNotIn("REMOTE_USER", json.loads(self.worker.call("/superglobals").text)["server"])

    def test_sessions_count_on_and_belong_to_their_browser(self):
        alice, bob = "PHPSESSID=alice00000000000000000000000", "PHPSESSID=bob0000000000000000000000000"
        counts = [self.worker.call("/count", cookie=cookie).text for cookie in (alice, bob, alice, alice, bob)]
        self.assertEqual(counts, ["count 1", "count 1", "count 2", "count 3", "count 2"])
        self.assertEqual([self.worker.call("/count").text for _ in range(2)], ["count 1"] * 2)
        self.assertEqual(self.worker.call("/count", cookie="PHPSESSID=../../etc/passwd").text, "count 1")

    def start_worker(self, *arguments):
        sessions = subprocess.check_output(["mktemp", "-d"], text=True).strip()
        self.addCleanup(subprocess.run, ["rm", "-r", sessions], check=True)
        worker = Worker([self.command[0], "-d", f"session.save_path={sessions}", *self.command[1:], *arguments])
        self.workers.append(worker)
        return worker


class PhpIsolated(Isolated, PhpContract, unittest.TestCase):
    command = [PHP, str(WORKERS / "worker.php"), "isolated"]
    fatal = ("/fatal", "/memory")


class PhpShared(Shared, PhpContract, unittest.TestCase):
    command = [PHP, str(WORKERS / "worker.php"), "shared"]


class PythonContract(Exiting, Contract):
    def test_exit_status_is_told(self):
        self.assertEqual(self.worker.call("/exit?status=3").status, 3)
        answer = self.worker.call("/die")
        self.assertEqual((answer.status, answer.stderr), (1, b"last words\n"))


class PythonIsolated(Isolated, PythonContract, unittest.TestCase):
    command = [PYTHON, str(WORKERS / "worker.py"), "isolated"]


class PythonShared(Shared, PythonContract, unittest.TestCase):
    command = [PYTHON, str(WORKERS / "worker.py"), "shared"]


class PythonWsgi(unittest.TestCase):
    def test_wsgi_application_answers(self):
        worker = Worker([PYTHON, str(WORKERS / "worker.py"), "wsgi"])
        self.addCleanup(worker.stop)
        answer = worker.call("/page", b"a body")
        self.assertEqual((answer.text, answer.http_status, answer.status), ("POST a body", 404, 0))
        self.assertEqual(worker.call("/broken").http_status, 500)


class Node(Shared, Contract, unittest.TestCase):
    command = [NODE, str(WORKERS / "worker.mjs"), "shared"]
    stderr_of_validate = False
    growth_kib = 16384  # V8 collects when it likes

    def test_many_calls_run_at_once(self):
        fifos = [self.worker.fifo(f"pipe{number}") for number in range(3)]  # the file system has four threads
        waiting = [self.worker.start(f"/hold?fifo={fifo}") for fifo in fifos]
        for exchange in waiting:
            exchange.read_until(b"\n")
        with ThreadPoolExecutor(16) as pool:
            messages = [str(number).encode() * 1000 for number in range(400)]
            answers = list(pool.map(lambda message: self.worker.call("/echo", message).body, messages))
        self.assertEqual(answers, messages)
        for fifo, exchange in zip(fifos, waiting):
            release(fifo)
            self.assertTrue(exchange.finish().text.endswith("released"))

    def test_signal_tells_that_the_browser_is_gone(self):
        fifo = self.worker.fifo("pipe")
        exchange = self.worker.start(f"/hold?fifo={fifo}")
        exchange.read_until(b"\n")
        exchange.close()
        eventually(lambda: self.worker.call("/aborted").text == "1", "the call is told")
        release(fifo)
        self.assertReply(self.worker.call("/print"), "printed, returned")

    def test_endless_reply_waits_for_its_reader_and_ends_with_it(self):
        exchange = self.worker.start("/endless")
        exchange.read_record()
        self.assertReply(self.worker.call("/aborted"), "0")
        self.assertLess(self.worker.memory_kib(), 200 * 1024)
        exchange.close()
        eventually(lambda: self.worker.call("/aborted").text == "1", "the generator is ended")

    def test_process_exit_closes_the_connection_without_an_end(self):
        self.assertFalse(self.worker.call("/exit").ended)
        self.assertEqual(self.worker.wait(), 3)


class CarbonPhp(unittest.TestCase):
    """The example: a CarbonPHP application's two callbacks, unchanged."""

    def setUp(self):
        sessions = subprocess.check_output(["mktemp", "-d"], text=True).strip()
        self.addCleanup(subprocess.run, ["rm", "-r", sessions], check=True)
        self.worker = Worker([PHP, "-d", f"session.save_path={sessions}", str(EXAMPLES / "carbonphp" / "worker.php")])
        self.addCleanup(self.worker.stop)

    def test_callbacks_run_with_the_browsers_session(self):
        cookie = "PHPSESSID=try000000000000000000000000"
        self.assertEqual(self.worker.call(event="validate", cookie=cookie).body, b"")
        self.assertEqual([self.worker.call("count", cookie=cookie).text for _ in range(2)], ["count 1", "count 2"])
        self.assertEqual(self.worker.call("login/ann", cookie=cookie).text, "welcome, ann")
        self.assertEqual(self.worker.call(event="validate", cookie=cookie).text, "ann")
        self.assertEqual(self.worker.call("/whoami", user="ann", cookie=cookie).text, "ann from 192.0.2.7:50123 by a browser")
        self.assertEqual(self.worker.call("count").text, "count 1")

    def test_callback_that_exits_or_dies_ends_its_own_call_only(self):
        self.assertEqual(self.worker.call("exit").text, "goodbye")
        answer = self.worker.call("fatal")
        self.assertEqual((answer.http_status, answer.status), (500, 0))
        self.assertIn("missing_function", answer.stderr.decode())
        self.assertEqual(self.worker.call("nowhere").text, "No route was matched for nowhere")


if __name__ == "__main__":
    unittest.main()
