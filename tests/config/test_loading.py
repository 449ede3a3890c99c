"""Files and folders -> `Relay` and `Rules`: merging, names over files, what is not built, and nothing half-loaded."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.loading import load_relay, load_rules
from config.problems import ConfigInvalid
from config.relay_settings import Relay
from config.rules import Place
from tests.config.kinds import KINDS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to write a configuration into; paths in problems are relative to it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "routes.d").mkdir()
    return tmp_path


def write(folder, **files):
    """`routes`, `relay`, or `d_NAME` for routes.d/NAME.yaml."""
    for name, text in files.items():
        path = folder / "routes.d" / f"{name[2:]}.yaml" if name.startswith("d_") else folder / f"{name}.yaml"
        path.write_text(text, "utf-8")


def rules(folder, warnings=None):
    return load_rules(folder.relative_to(folder), KINDS, warnings)


def problems(load):
    """The problems of a load that must fail, as ops see them."""
    with pytest.raises(ConfigInvalid) as invalid:
        load()
    assert str(invalid.value) == "\n".join(str(problem) for problem in invalid.value.problems)
    return str(invalid.value).splitlines()


LIST = "more than one sender; write a list: [acme.nl, info@globex.nl]"
NAME = "is not a name for an upstream; use letters, digits, - _ and . only"
OUT = "upstreams: {out: {type: smtp, host: mail.callcenter.nl}}\n"


# ---- relay.yaml ------------------------------------------------------------------------------------------------


def relay(folder, text, warnings=None):
    write(folder, relay=text)
    return load_relay((folder / "relay.yaml").relative_to(folder), warnings)


def test_the_page_is_not_where_mail_is_accepted(folder):
    found = problems(lambda: relay(folder, "listen: {address: '127.0.0.1:25'}\nstatus: {address: '127.0.0.1:25'}"))
    assert found == ["relay.yaml:2  status.address: 127.0.0.1:25 is where mail is accepted; give it a port of its own"]


def test_a_login_on_a_network_needs_tls(folder, monkeypatch):
    monkeypatch.setenv("SCANNER", "s3cret")
    users = "users: [{name: scanner, password: 'env:SCANNER'}, {name: scanner, password: 'env:SCANNER'}]"
    found = problems(lambda: relay(folder, f"listen: {{address: '192.0.2.1:587', allow: 192.0.2.0/24, {users}}}"))
    assert [problem.partition(";")[0] for problem in found] == [
        "relay.yaml:1  listen.users: would send their passwords over the network in clear",
        "relay.yaml:1  listen.users[1].name: scanner stands here twice",
    ]
    one = users.partition("}")[0] + "}]"
    assert relay(folder, f"listen: {{address: '127.0.0.1:587', {one}}}").listen[0].users[0].name == "scanner"


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "limits:\ndelivery:\nspool:\n"])
def test_an_empty_relay_yaml_is_the_defaults(folder, text):
    assert relay(folder, text) == Relay()


def test_a_listener_for_others_must_say_who(folder):
    for address in ("0.0.0.0:25", "'[::]:25'", "192.0.2.1:25"):
        (problem,) = problems(lambda address=address: relay(folder, f"listen: {{address: {address}}}"))
        assert problem.startswith("relay.yaml:1  listen[0].allow: is missing")
    made = relay(folder, "listen: {address: '0.0.0.0:25', allow: [192.0.2.0/24, 127.0.0.0/8]}")
    assert made.listen[0].allow == ("192.0.2.0/24", "127.0.0.0/8")
    assert relay(folder, "listen: [{address: 'localhost:25'}, {address: '[::1]:25'}]").listen[1].allow


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "workers: 4",
            "workers: above 1 needs a database, for one file has one writer; write 1 (one process takes some two "
            "thousand mails a second), or a PostgreSQL url under `spool:`",
        ),
        ("workers: 64", "workers: is too large; write at most 32"),
        ("workers: 0", "workers: is too small; write at least 1"),
        (
            "spool: {url: 'postgresql://relay:geheim@db/relay'}",
            'spool.url: has a password in it; leave it out, and write `password: "systemd:spool-db"` beside it',
        ),
        (
            "spool: {url: 'postgresql://relay@db/relay?password=geheim'}",
            'spool.url: has a password in it; leave it out, and write `password: "systemd:spool-db"` beside it',
        ),
        (
            "spool: {url: 'postgresql://relay@[::1/relay'}",
            "spool.url: is not understood; write postgresql://relay@db.example/relay",
        ),
        (
            "limits: {content_memory: 64KB}",
            "limits.content_memory: is too small; write at least 1048576",
        ),
        (
            "spool: {buffer: sqlite}",
            "spool.buffer: stands in front of a database only, and `url` is a file of this machine already; "
            "leave it out",
        ),
        (
            "spool: {url: 'postgresql://relay@db/relay', buffer: buffer.db}",
            "spool.buffer: is neither `sqlite` nor a file's url; write sqlite, or sqlite:////path/buffer.db",
        ),
        (
            "spool: {url: 'postgresql://relay@db'}",
            "spool.url: names no database; write postgresql://relay@db.example/relay",
        ),
        (
            "call_centre: {name: Us, contact: postmästare@callcenter.nl}",
            "call_centre.contact: has letters before the @ that few servers take; write those without accents",
        ),
        ("limits: {spool_size: 0}", "limits.spool_size: is too small; write at least 1024"),
        (
            "{status: {address: '127.0.0.1:80'}, webhooks: {address: '127.0.0.1:80'}}",
            "webhooks.address: 127.0.0.1:80 is where the status page is; give it a port of its own",
        ),
        (
            "listen: [{address: '127.0.0.1:25'}, {address: '127.0.0.1:25'}]",
            "listen[1].address: 127.0.0.1:25 stands here twice; keep one of the two",
        ),
        ("hostname: our relay", "hostname: our relay is not a domain; write it like acme.nl"),
        ("delivery: {retry: []}", "delivery.retry: is empty; write at least one, or remove the key"),
        ("delivery: {retry: [0s]}", "delivery.retry[0]: is too small; write at least 1"),
        ("listen:", "listen: is empty; write at least one, or remove the key"),
        ("lissen: x", "lissen: is not a key here; did you mean listen?"),
        ("- x", "should be a block of keys; write `key: value` lines under it"),
    ],
)
def test_what_relay_yaml_may_not_say(folder, text, problem):
    assert problems(lambda: relay(folder, text)) == [f"relay.yaml:1  {problem}"]


def test_the_status_page_is_on_loopback_and_its_token_is_long(folder):
    warnings = []
    assert relay(folder, "status: {}", warnings).status.address == "127.0.0.1:8025"
    assert warnings == []
    relay(folder, "status: {address: '0.0.0.0:8025'}", warnings)
    assert [problem.path for problem in warnings] == ["status.address"]
    told = problems(lambda: relay(folder, "status: {token: geheim}"))
    assert [line for line in told if "status.token: is shorter than 16" in line]
    assert not [line for line in told if "geheim" in line]


def test_a_domain_is_kept_as_other_programs_know_it(folder):
    made = relay(folder, "hostname: Relay.München.DE.\nstatus: {hosts: [Status.münchen.de]}")
    assert (made.hostname, made.status.hosts) == ("relay.xn--mnchen-3ya.de", ("status.xn--mnchen-3ya.de",))


def test_a_token_of_the_unit_is_not_asked_for_outside_it(folder, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    text = "status: {token: 'systemd:status-token'}"
    assert relay(folder, text, []).status.token.reveal() == ""
    with pytest.raises(ConfigInvalid, match="CREDENTIALS_DIRECTORY"):
        load_relay(folder / "relay.yaml", outside_unit=False)


def test_a_missing_file_is_a_problem(folder):
    assert problems(lambda: load_relay((folder / "relay.yaml").relative_to(folder))) == [
        "relay.yaml:1  cannot be read: No such file or directory; check the path, or begin with what "
        "`callpro-relay example relay.yaml` prints"
    ]
    assert problems(lambda: rules(folder)) == [
        "routes.yaml:1  cannot be read: No such file or directory; check the path, or begin with what "
        "`callpro-relay example routes.yaml` prints"
    ]


# ---- routes.yaml and routes.d ----------------------------------------------------------------------------------


def test_files_are_merged_in_name_order(folder):
    write(
        folder,
        routes=OUT + "routes: {from: a.nl, via: out}",
        d_c="routes: {from: c.nl, via: late}\ntests: {from: x@c.nl, via: late}",
        d_b="upstreams: {late: {type: smtp, host: x.nl}}\nroutes: [{from: b.nl, via: out}]",
        d_empty="# this customer has left\n",
    )
    loaded = rules(folder)
    assert [route.name for route in loaded.routes] == ["a.nl", "b.nl", "c.nl"]
    assert [route.place for route in loaded.routes] == [
        Place("routes.yaml", 2),
        Place("routes.d/b.yaml", 2),
        Place("routes.d/c.yaml", 1),
    ]
    assert {name: rule.place.file for name, rule in loaded.upstreams.items()} == {
        "out": "routes.yaml",
        "late": "routes.d/b.yaml",
    }
    assert [test.place for test in loaded.tests] == [Place("routes.d/c.yaml", 2)]


def test_a_folder_alone_is_enough(folder):
    write(folder, d_a=OUT + "routes: {from: a.nl, via: out}")
    assert [route.name for route in rules(folder).routes] == ["a.nl"]


def test_files_with_other_names_are_told_and_editors_litter_is_not(folder):
    write(folder, routes=OUT)
    for name in ("acme.yml", ".#acme.yaml", "#acme.yaml#", "acme.yaml~", "README.md", ".hidden.yaml"):
        (folder / "routes.d" / name).write_text("nonsense: [")
    assert problems(lambda: rules(folder)) == ["routes.d/acme.yml:1  is not read, for its name; rename it to acme.yaml"]


def test_rules_that_cannot_be_reached_do_not_pass_for_none(folder):
    """Without an error every customer in them would be refused for good."""
    write(folder, routes=OUT + "routes: {from: a.nl, via: out}")
    (folder / "routes.d").rmdir()
    (folder / "routes.d").symlink_to("of-last-week")
    mend = "check the folder and its permissions"
    assert problems(lambda: rules(folder)) == [f"routes.d:1  cannot be read: No such file or directory; {mend}"]
    (folder / "routes.d").unlink()
    (folder / "routes.d").write_text("routes: []")
    assert problems(lambda: rules(folder)) == [f"routes.d:1  cannot be read: Not a directory; {mend}"]
    (folder / "routes.d").unlink()
    assert [route.name for route in rules(folder).routes] == ["a.nl"]

    (folder / "routes.yaml").rename(folder / "elsewhere.yaml")
    (folder / "routes.yaml").symlink_to("of-last-week.yaml")
    (folder / "routes.d").mkdir()
    write(folder, d_b=OUT + "routes: {from: b.nl, via: out}")
    (said,) = problems(lambda: rules(folder))
    assert said.startswith("routes.yaml:1  cannot be read: No such file or directory; ")


def test_thousands_of_unknown_upstreams_are_told_without_a_guess_for_each(folder, monkeypatch):
    guesses = []
    monkeypatch.setattr("config.loading.mend_word", lambda text, _names: guesses.append(text) or "guess")
    upstreams = "".join(f"  login-{number}: {{type: smtp, host: x.nl}}\n" for number in range(300))
    routes = "".join(f"  - {{from: c{number}.nl, via: logon-{number}}}\n" for number in range(300))
    write(folder, routes=f"upstreams:\n{upstreams}routes:\n{routes}")
    assert len(problems(lambda: rules(folder))) == 300
    assert len(guesses) <= 20


def test_patterns_are_kept_in_their_normal_form(folder):
    write(folder, routes=OUT + "routes: {from: [MÜNCHEN.de., '*.Acme.NL', Info@Acme.nl, <>], via: out}")
    (route,) = rules(folder).routes
    assert route.settings.from_ == ("xn--mnchen-3ya.de", "*.acme.nl", "info@acme.nl", "<>")
    assert route.name == "xn--mnchen-3ya.de"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("acme.nl", "ACME.nl."),
        ("münchen.de", "xn--mnchen-3ya.de"),
        ('"*.acme.nl"', '"*.Acme.nl"'),
        ("info@acme.nl", "INFO@acme.nl"),
        ("<>", '"<>"'),
        ('"*"', "'*'"),
    ],
)
def test_a_pattern_has_one_route_over_all_files(folder, first, second):
    write(folder, routes=OUT + f"routes: {{from: {first}, via: out}}", d_x=f"routes:\n- {{from: {second}, via: out}}")
    (problem,) = problems(lambda: rules(folder))
    assert problem.startswith("routes.d/x.yaml:2  routes[0].from: ")
    assert problem.endswith(" has a route at routes.yaml:2 already; keep one of the two")


def test_a_pattern_twice_through_an_alias_or_in_one_list(folder):
    write(
        folder,
        routes=OUT
        + "routes:\n- {from: &a acme.nl, via: out}\n- {from: *a, via: out}\n- {from: [b.nl, B.nl], via: out}",
    )
    assert [problem.count("already") for problem in problems(lambda: rules(folder))] == [1, 1]


def test_an_upstream_has_one_place_over_all_files(folder):
    write(folder, routes=OUT, d_x=OUT)
    assert problems(lambda: rules(folder)) == [
        "routes.d/x.yaml:1  upstreams.out: is named at routes.yaml:1 already; give it another name"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("routes: {from: a.nl, via: oout}", "routes[0].via: there is no upstream 'oout'; did you mean out?"),
        ("routes: {from: a.nl, via: [out, zz]}", "routes[0].via: there is no upstream 'zz'; write one of: out"),
        ("routes: {from: a.nl, via: []}", "routes[0].via: is empty; write at least one, or remove the key"),
        ("routes: {from: a.nl, via: [out, out]}", "routes[0].via[1]: out stands here twice; name each upstream once"),
        ("routes: {from: a.nl, via: no}", 'routes[0].via: no without quotes means yes or no in YAML; write "no"'),
        (
            "routes: {from: a.nl, via: out, canary: {via: oout, percent: 5}}",
            "routes[0].canary.via: there is no upstream 'oout'; did you mean out?",
        ),
        (
            "routes: {from: a.nl, via: out, canary: {via: out, percent: 5}}",
            "routes[0].canary.via: out is in the route's own `via` already; "
            "name another upstream, or leave the canary out",
        ),
        (
            "{upstreams: {new: {type: connector, source_address: 203.0.113.10}}, "
            "routes: {from: a.nl, via: out, canary: {via: new}}}",
            "routes[0].canary: does not say which mail goes by it; write `percent: 5`, or `recipients:`, or both",
        ),
        (
            "{upstreams: {new: {type: connector, source_address: 203.0.113.10}}, "
            "routes: {from: a.nl, via: out, canary: {via: new, percent: 100}}}",
            "routes[0].canary.percent: is too large; write at most 99",
        ),
        (
            "{upstreams: {new: {type: connector, source_address: 203.0.113.10}}, "
            "routes: {from: a.nl, via: out, canary: {via: new, recipients: callcenter.nl}}}",
            "routes[0].canary.recipients: callcenter.nl is not an address; "
            'write test@callcenter.nl, or "@callcenter.nl" for a whole domain',
        ),
        ("routes: {from: [a.nl, 'b c'], via: out}", f"routes[0].from[1]: b c is {LIST}"),
        (
            "routes: {from: a.nl, via: out, pace: {per_day: 0}}",
            "routes[0].pace.per_day: is too small; write at least 1",
        ),
        (
            "routes: {from: a.nl, via: out, sender: {address: hooli}}",
            "routes[0].sender.address: hooli is not an address; write it like info@acme.nl",
        ),
        (
            "routes: {from: a.nl, via: out, sender: {address: josé@b.nl}}",
            "routes[0].sender.address: 'josé@b.nl' has letters before the @ that few servers take; "
            "write those without accents",
        ),
        (
            "routes: {from: a.nl, via: out, sender: {address: x@b.nl, reply_to: originial}}",
            "routes[0].sender.reply_to: originial is not an address; write original, none, "
            "or an address like info@acme.nl",
        ),
        (
            "routes: {from: a.nl, via: out, sender: {address: x@b.nl, original_from: nee}}",
            "routes[0].sender.original_from: is neither true nor false; write true or false, without quotes",
        ),
        ("routes: x", "routes[0]: should be a block of keys; write `key: value` lines under it"),
        ("tests: {from: a@a.nl, via: oout}", "tests[0].via: there is no upstream 'oout'; did you mean out?"),
        (
            "tests: {from: a@a.nl, via: out, refused: true}",
            "tests[0]: must say what is expected; write either `via: NAME` or `refused: true`",
        ),
        ("tests: {from: a.nl, refused: true}", "tests[0].from: a.nl is not an address; write it like info@acme.nl"),
        ("route: []", "route: is not a key here; did you mean routes?"),
    ],
)
def test_what_routes_may_not_say(folder, text, problem):
    write(folder, routes=OUT, d_x=text)
    assert problems(lambda: rules(folder)) == [f"routes.d/x.yaml:1  {problem}"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x: {host: a.nl}", "upstreams.x.type: is missing; add one of: " + ", ".join(sorted(KINDS))),
        ("x: {type: smpt, host: a.nl}", "upstreams.x.type: is not a type of upstream; did you mean smtp?"),
        ("x: {type: [smtp]}", "upstreams.x.type: is not a type of upstream; write one of: " + ", ".join(sorted(KINDS))),
        ("x: smtp", "upstreams.x: should be a block of keys; write `key: value` lines under it"),
        ("x y: {type: smtp, host: a.nl}", f'upstreams."x y": {NAME}'),
        ("no: {type: smtp, host: a.nl}", 'upstreams.no: no without quotes means yes or no in YAML; write "no"'),
        (
            "x: {type: smtp, host: a.nl, type: smtp}",
            "upstreams.x.type: stands here a second time (first on line 1); keep one of the two",
        ),
    ],
)
def test_what_an_upstream_may_not_be(folder, text, problem):
    write(folder, routes=f"upstreams: {{{text}}}")
    assert problems(lambda: rules(folder)) == [f"routes.yaml:1  {problem}"]


def test_a_mail_that_would_hear_452_for_ever_is_told(folder):
    warnings = []
    relay(folder, "limits: {message_size: 20MB, spool_size: 20MB}", warnings)
    assert warnings == []
    relay(folder, "limits: {message_size: 20MB, spool_size: 10MB}", warnings)
    assert [problem.path for problem in warnings] == ["limits.spool_size"]


def test_warnings_are_handed_back(folder):
    write(folder, routes="upstreams: {x: {type: smtp, host: localhost, username: me, password: hunter2}}")
    warnings = []
    assert rules(folder, warnings).upstreams["x"].kind == "smtp"
    assert [problem.path for problem in warnings] == ["upstreams.x.password"]


_WORDS = st.sampled_from(
    (
        *(
            "upstreams",
            "routes",
            "tests",
            "from",
            "via",
            "type",
            "smtp",
            "host",
            "x.nl",
            "port",
            "out",
            "<>",
            "*",
            "*.x.nl",
        ),
        *(
            "a@x.nl",
            "no",
            "null",
            "refused",
            "true",
            "dkim",
            "sender",
            "pace",
            "listen",
            "address",
            "allow",
            "spool",
            "url",
        ),
        *("limits", "5", "-1", "3d", "&a", "*a", "<<", "!t", "''", "[]", "{}", "env:PATH", "file:/etc/hostname"),
    )
)
_INDENTS = st.sampled_from(("", "  ", "    ", "- ", "  - ", "\t"))
_LINES = st.lists(st.tuples(_INDENTS, _WORDS, st.sampled_from((": ", ":", " ", ", ")), _WORDS), max_size=12)


def attempt(load):
    """The problems that kept a load from succeeding; None when it did."""
    try:
        load()
    except ConfigInvalid as invalid:
        return invalid.problems
    return None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(_LINES | st.text(max_size=80).map(lambda text: [("", text, "", "")]))
def test_whatever_stands_there_it_loads_or_is_invalid(folder, lines):
    text = "\n".join("".join(line) for line in lines).encode("utf-8", "replace")
    for name, load in (("relay.yaml", load_relay), ("routes.yaml", lambda path: load_rules(path.parent, KINDS))):
        (folder / name).write_bytes(text)
        found = attempt(lambda name=name, load=load: load((folder / name).relative_to(folder)))
        assert found is None or any(not problem.warning for problem in found)
        assert all(str(problem).isprintable() for problem in found or ())
