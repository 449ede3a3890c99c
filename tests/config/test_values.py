"""Words and numbers as ops write them: each row is what is written and what it becomes, or why it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import names, network, values
from config.fields import Mistake, is_loopback
from config.nodes import Scalar
from config.rules import Place
from config.spool_urls import sqlite_path

PLACE = Place("f.yaml", 1)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("5m", 300), ("2h", 7200), ("3d", 259200), ("1w", 604800), ("45", 45), ("1.5h", 5400), ("0", 0)],
)
def test_durations(written, seconds):
    assert values.parse_duration(written) == seconds


@pytest.mark.parametrize("written", ["", "5 minutes", "-5m", "1h30m", "5M", "inf", "1e9", "m", "٣m", "9" * 400])
def test_not_a_duration(written):
    with pytest.raises(Mistake, match="90s, 5m, 2h or 3d"):
        values.parse_duration(written)


@pytest.mark.parametrize("written", ["36501d", "999999999w", "999999999999d"])
def test_a_duration_ends_before_the_calendar_does(written):
    assert values.parse_duration("36500d") == 36500 * 86400
    with pytest.raises(Mistake):
        values.parse_duration(written)


@pytest.mark.parametrize(
    ("written", "octets"),
    [("35MB", 35 << 20), ("64KB", 64 << 10), ("10GB", 10 << 30), ("1 gb", 1 << 30), ("1.5KB", 1536), ("17", 17)],
)
def test_sizes(written, octets):
    assert values.parse_size(written) == octets


@pytest.mark.parametrize("written", ["", "big", "-1MB", "10 GiB", "1PB", "MB", "9" * 400])
def test_not_a_size(written):
    with pytest.raises(Mistake, match="35MB"):
        values.parse_size(written)


@pytest.mark.parametrize("word", ["no", "No", "NO", "yes", "on", "off", "true", "FALSE"])
def test_a_bare_yes_or_no_is_no_text(word):
    with pytest.raises(Mistake, match=f'write "{word}"'):
        values.string(Scalar(PLACE, word))
    assert values.string(Scalar(PLACE, word, plain=False)) == word


@pytest.mark.parametrize("word", ["nO", "noo", "y", "n", "0123", "1e3", "null-island"])
def test_other_words_are_text_as_they_stand(word):
    assert values.string(Scalar(PLACE, word)) == word


@pytest.mark.parametrize("text", ["", "~", "null", "  "])
def test_nothing_is_no_text(text):
    with pytest.raises(Mistake, match="remove the key"):
        values.string(Scalar(PLACE, text))


@pytest.mark.parametrize("text", ["025", "1.0", "1_000", "0x10", "", "9" * 19, "12:30"])
def test_not_a_whole_number(text):
    with pytest.raises(Mistake, match="digits only"):
        values.integer(Scalar(PLACE, text))


def test_a_quoted_number_is_not_a_number():
    with pytest.raises(Mistake, match="without quotes"):
        values.integer(Scalar(PLACE, "5", plain=False))


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("acme.nl", "acme.nl"),
        ("ACME.nl.", "acme.nl"),
        ("münchen.de", "xn--mnchen-3ya.de"),
        ("MÜNCHEN.DE", "xn--mnchen-3ya.de"),
        ("XN--MNCHEN-3YA.de", "xn--mnchen-3ya.de"),
        ("*.münchen.de", "*.xn--mnchen-3ya.de"),
        ("*.ACME.nl", "*.acme.nl"),
        ("Info@Acme.NL", "info@acme.nl"),
        ("info@münchen.de", "info@xn--mnchen-3ya.de"),
        ("under_score.nl", "under_score.nl"),
        ("localhost", "localhost"),
        ("info@[192.0.2.1]", "info@[192.0.2.1]"),
        ("info@[IPv6:2001:db8::1]", "info@[ipv6:2001:db8::1]"),
        ("straße.de", "xn--strae-oqa.de"),
        ("<>", "<>"),
        ("*", "*"),
    ],
)
def test_patterns_have_one_normal_form(written, normal):
    assert names.pattern(written) == normal
    assert names.pattern(normal) == normal


@pytest.mark.parametrize(
    ("written", "mend"),
    [
        ("@acme.nl", "write the domain alone: acme.nl"),
        ("*@acme.nl", "write the domain alone: acme.nl"),
        (".acme.nl", r'write "\*.acme.nl"'),
        ("*acme.nl", r'"\*" or "\*.acme.nl"'),
        ("a.*.nl", r'"\*" or "\*.acme.nl"'),
        ("**", r'"\*" or "\*.acme.nl"'),
        ("acme.nl, globex.nl", r"\[acme.nl, info@globex.nl\]"),
        ("", '"<>"'),
        ("acme..nl", "like acme.nl"),
        ("-acme.nl", "like acme.nl"),
        ("*.", "like acme.nl"),
        ("☃-.nl" + "x" * 300, "xn--"),
        ("x" * 2000, "253"),
        ("a@b@c.nl", "only the address"),
        ("<info@acme.nl>", "only the address"),
        ("info@", "like info@acme.nl"),
        ("acme.nl\x1b[31m", "like acme.nl"),
        ("a@[\x1b]", "like acme.nl"),
    ],
)
def test_pattern_slips_come_with_their_mend(written, mend):
    with pytest.raises(Mistake, match=mend) as mistake:
        names.pattern(written)
    assert str(mistake.value).isprintable()


@given(st.text(max_size=80))
def test_a_pattern_is_read_or_is_a_mistake(text):
    try:
        normal = names.pattern(text)
    except Mistake:
        return
    assert names.pattern(normal) == normal


@pytest.mark.parametrize(
    ("written", "host", "port"),
    [("127.0.0.1:25", "127.0.0.1", 25), ("[::1]:0", "::1", 0), ("localhost:25", "localhost", 25),
     ("0.0.0.0:25", "0.0.0.0", 25)],
)  # fmt: skip
def test_addresses_to_listen_on(written, host, port):
    assert network.host_port(written) == (host, port)


@pytest.mark.parametrize(
    "written", ["", "25", ":25", "127.0.0.1", "::1:25", "*:25", "mail.nl:25", "1.2.3.4:99999", "[::1]25"]
)
def test_not_an_address_to_listen_on(written):
    with pytest.raises(Mistake, match=r"127\.0\.0\.1:25"):
        network.host_port(written)


@pytest.mark.parametrize("written", ["smtp.acme.nl", "mailhub", "localhost", "mail_1.acme.nl", "192.0.2.7", "::1"])
def test_servers(written):
    assert network.server(written) == written


@pytest.mark.parametrize(
    ("written", "mend"),
    [("https://smtp.acme.nl", "write the server's name alone"), ("smtp.acme.nl/", "write the server's name alone"),
     ("smtp.acme.nl:587", "`host: smtp.acme.nl` and `port: 587`"), ("[::1]", "write ::1"),
     ("info@acme.nl", "like smtp.acme.nl"), ("smtp acme.nl", "like smtp.acme.nl"), ("", "like smtp.acme.nl")],
)  # fmt: skip
def test_not_a_server(written, mend):
    with pytest.raises(Mistake) as caught:
        network.server(written)
    assert mend in caught.value.mend


@pytest.mark.parametrize("written", ["127.0.0.0/8", "::1", "192.0.2.7", "2001:db8::/32", "192.0.2.7/32"])
def test_networks(written):
    assert str(network.network(written)).startswith(written.partition("/")[0])


@pytest.mark.parametrize(
    ("written", "mend"),
    [
        ("0.0.0.0/0", "name the networks"),
        ("::/0", "name the networks"),
        ("192.0.2.7/24", "write 192.0.2.0/24"),
        ("callpro", "192.0.2.0/24"),
        ("", "192.0.2.0/24"),
        ("192.0.2.0/33", "192.0.2.0/24"),
    ],
)
def test_not_a_network(written, mend):
    with pytest.raises(Mistake, match=mend):
        network.network(written)


@pytest.mark.parametrize(
    ("url", "path"), [("sqlite:////var/lib/x.db", "/var/lib/x.db"), ("sqlite:////x y.db", "/x y.db")]
)
def test_the_file_of_the_spool(url, path):
    assert sqlite_path(url) == Path(path)


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("mysql://relay@db.example/relay", "neither a sqlite nor a postgresql url"),
        ("sqlite:///spool.db", "four slashes"),
        ("sqlite:////", "four slashes"),
        ("/var/lib/x.db", "neither a sqlite nor a postgresql url"),
        ("sqlite:////x.db?mode=memory", "another meaning"),
    ],
)
def test_not_a_spool(url, wrong):
    with pytest.raises(Mistake, match=wrong):
        sqlite_path(url)


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("localhost", True), ("mail.localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True),
        ("[::1]", True), ("http://127.0.0.1:8080/v1", True), ("https://localhost/x", True), ("http://[::1]:5/", True),
        ("localhost.acme.nl", False), ("notlocalhost", False), ("0.0.0.0", False), ("smtp.acme.nl", False),
        ("https://127.0.0.1.acme.nl/", False), ("https://localhost@acme.nl/", False), ("http://[bad", False),
        ("", False),
    ],
)  # fmt: skip
def test_loopback(way, expected):
    assert is_loopback(way) is expected


def test_a_whole_url_and_nothing_around_it():
    for text in ("https://hooks.acme.nl/x?y=1", "https://hooks.acme.nl:8443", "http://127.0.0.1:80/x", "http://[::1]/"):
        assert network.is_https_url(text)
    for text in (
        *("http://hooks.acme.nl/x", "hooks.acme.nl/x", "https:///x", "https://[/x", "https://hooks.acme.nl:80x/x"),
        *("https://hooks.acme.nl/x\n", " https://hooks.acme.nl/x", "https://hooks acme.nl/x", "https://x:0/", ""),
    ):
        assert not network.is_https_url(text), text
