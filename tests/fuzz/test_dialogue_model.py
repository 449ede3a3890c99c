"""Any dialogue of any length against the real server: a model says what each reply must be and what must be kept."""

from __future__ import annotations

import re
import socket
from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fuzz.targets import server
from tests.intake.house import MAIL, text_of

SENDERS: Final = {
    "<info@acme.nl>": ("250", "info@acme.nl"), "<x@globex.nl> SIZE=10": ("250", "x@globex.nl"), "<>": ("250", ""),
    " info@acme.nl": ("250", "info@acme.nl"), "Acme <info@acme.nl> RET=HDRS": ("250", "info@acme.nl"),
    "<x@unknown.nl>": ("550", None), "<x@acme.nl> FOO=1": ("555", None), "<a@b@acme.nl>": ("553", None),
    "<info@acme.nl> SIZE=99999999": ("552", None), "<in\rfo@acme.nl>": ("553", None), "": ("501", None),
}  # fmt: skip
RECIPIENTS: Final = {
    "<a@example.org>": ("250", "a@example.org"), "<b@example.org> NOTIFY=NEVER": ("250", "b@example.org"),
    "Jan <c@example.org>": ("250", "c@example.org"), "<d>": ("553", None), "<>": ("553", None), "": ("501", None),
    '<"e f"@example.org>': ("250", '"e f"@example.org'), "<a@example.org>\0": ("501", None),
}  # fmt: skip
CONTENTS: Final = (
    MAIL, MAIL + b"..\r\n...x\r\n", MAIL + b"\n.\nMAIL FROM:<evil@acme.nl>\r\n", MAIL + b"x" * 70_000 + b"\r\n",
    b"Subject: kaal\r\n\r\nzonder datum\r\n", b"\r\n", b"\0\r\n\0.\r\n", b"\xff" * 500 + b"\r\n",
)  # fmt: skip


class Dialogue(RuleBasedStateMachine):
    """The client, and what the server must make of it."""

    @initialize()
    def connect(self) -> None:
        self.server = server()
        del self.server.house.spool.arrivals[:]
        self.kept: list[tuple[str, tuple[str, ...], bytes]] = []
        self._open()

    def _open(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.server.house.port), 20)
        self.file = self.socket.makefile("rb")
        self.sender: str | None = None
        self.recipients: list[str] = []
        self.patience = 100
        assert self._reply() == "220"

    def _reply(self) -> str:
        while True:
            line = self.file.readline()
            assert re.fullmatch(rb"[2-5][0-9]{2}[ -][\x20-\x7e]*\r\n", line), line
            if line[3:4] == b" ":
                return line[:3].decode()

    def say(self, line: str, expected: str) -> None:
        self.socket.sendall(line.encode("latin-1") + b"\r\n")
        found = self._reply()
        assert found == expected, (line, found, expected)
        if expected in ("500", "501", "502", "503", "555"):
            self.patience -= 5
        elif line[:4] in ("NOOP", "RSET", "HELP", "VRFY"):
            self.patience -= 1

    @invariant()
    def is_patient(self) -> None:
        """Before the server turns us out for talking without a mail, we go of our own accord."""
        if getattr(self, "patience", 100) <= 10:
            self.leave_and_come_back(quit=True)

    def forget(self) -> None:
        self.sender, self.recipients = None, []

    @rule(greeting=st.sampled_from(["EHLO x", "HELO x", "EHLO [127.0.0.1]"]))
    def greet(self, greeting: str) -> None:
        self.say(greeting, "250")
        self.forget()

    @rule(argument=st.sampled_from(sorted(SENDERS)))
    def mail(self, argument: str) -> None:
        code, address = SENDERS[argument]
        self.forget()
        self.say(f"MAIL FROM:{argument}", code)
        self.sender = address

    @rule(argument=st.sampled_from(sorted(RECIPIENTS)))
    def rcpt(self, argument: str) -> None:
        code, address = RECIPIENTS[argument]
        self.say(f"RCPT TO:{argument}", code if self.sender is not None else "503")
        if self.sender is not None and address is not None and address not in self.recipients:
            self.recipients.append(address)

    @rule(
        content=st.sampled_from(CONTENTS), cut=st.integers(1, 5000), command=st.sampled_from(["DATA", "data", "Data"])
    )
    def data(self, content: bytes, cut: int, command: str) -> None:
        if self.sender is None or not self.recipients:
            self.say(command, "503" if self.sender is None else "554")
            return
        self.say(command, "354")
        wire = re.sub(rb"(?m)^\.", b"..", content) + b".\r\n"
        for position in range(0, len(wire), max(cut, len(wire) // 50)):
            self.socket.sendall(wire[position : position + max(cut, len(wire) // 50)])
        assert self._reply() == "250"
        self.kept.append((self.sender, tuple(self.recipients), content))
        self.patience = 100
        self.forget()

    @rule(command=st.sampled_from(["NOOP", "NOOP x", "HELP", "RSET"]))
    def idle(self, command: str) -> None:
        self.say(command, "250")
        if command == "RSET":
            self.forget()

    @rule(command=st.sampled_from(["", "RCPT", "MAIL", "EHLO", "DATA x", "QUIT x"]))
    def wrong(self, command: str) -> None:
        if command == "DATA x":
            code = "503" if self.sender is None else "554" if not self.recipients else "501"
        elif command == "RCPT":
            code = "501" if self.sender is not None else "503"
        else:
            code = "501" if command else "500"
        if command == "MAIL":
            self.forget()
        self.say(command, code)

    @rule()
    def a_whole_mail_at_once(self) -> None:
        """Pipelined; the replies come in order."""
        self.socket.sendall(b"RSET\r\nMAIL FROM:<info@acme.nl>\r\nRCPT TO:<p@example.org>\r\nDATA\r\n")
        assert [self._reply() for _ in range(4)] == ["250", "250", "250", "354"]
        self.socket.sendall(MAIL + b".\r\nMAIL FROM:<info@acme.nl>\r\n")
        assert [self._reply(), self._reply()] == ["250", "250"]
        self.kept.append(("info@acme.nl", ("p@example.org",), MAIL))
        self.patience = 100
        self.sender, self.recipients = "info@acme.nl", []

    @rule(quit=st.booleans())
    def leave_and_come_back(self, quit: bool) -> None:
        if quit:
            self.socket.sendall(b"QUIT\r\n")
            assert self._reply() == "221"
            assert self.file.read() == b""
        self.file.close()
        self.socket.close()
        self._open()

    @precondition(lambda self: self.sender is not None and self.recipients)
    @rule()
    def vanish_in_the_middle_of_a_mail(self) -> None:
        self.say("DATA", "354")
        self.socket.sendall(MAIL)
        self.leave_and_come_back(quit=False)

    @invariant()
    def exactly_the_mails_that_were_answered_are_kept(self) -> None:
        if not hasattr(self, "kept"):
            return
        arrivals = self.server.house.spool.arrivals
        assert [(one.sender, one.recipients) for one in arrivals] == [kept[:2] for kept in self.kept]
        for arrival, (_, _, content) in zip(arrivals, self.kept, strict=True):
            if not arrival.repairs:
                assert text_of(arrival.content) == content
        assert self.server.house.intake.numbers.bugs == 0

    def teardown(self) -> None:
        if hasattr(self, "socket"):
            self.file.close()
            self.socket.close()


TestDialogue = Dialogue.TestCase
TestDialogue.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
