"""The package as ops live with it: installed, used, upgraded, removed and purged under systemd, on a Debian 12."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.package.debian import ROOT, Debian

ROUTE = """
upstreams:
  acme-login: {type: smtp, host: 127.0.0.1, port: 2525, tls: none, username: callpro, password: "systemd:acme"}
  sink: {type: smtp, host: 127.0.0.1, port: 2525, tls: none}
routes:
  - {from: acme.nl, via: sink}
  - {from: globex.nl, via: acme-login}
"""
KNOCKING = """
import json, socket, time
greeted = refused = 0
try:
    while True:
        try:
            with socket.create_connection(("127.0.0.1", 25), timeout=30) as client:
                greeted += client.recv(100).startswith(b"220")
        except ConnectionRefusedError:
            refused += 1
        time.sleep(0.05)
except KeyboardInterrupt:
    open("/run/knocked", "w").write(json.dumps({"greeted": greeted, "refused": refused}))
"""
ENV_ROUTE = """
upstreams:
  our-mailgun: {type: mailgun, domain: mg.callcenter.nl, api_key: "env:MAILGUN_KEY"}
routes:
  - {from: hooli.nl, via: our-mailgun}
"""
# The sandbox lets it give its file to nobody, which `cp -p` can do without.
ALERTS = "alerts: {command: [/bin/sh, -c, cd /var/lib/callpro-relay && cp -p /etc/hostname h && touch told]}"
NEW_SECRET = """
upstreams:
  initech: {type: smtp, host: 127.0.0.1, port: 2525, tls: none, username: callpro, password: "systemd:initech"}
routes:
  - {from: initech.nl, via: initech}
"""
PID = "systemctl show -P MainPID callpro-relay"
SPOOL = "/var/lib/private/callpro-relay/spool.db"


def waiting(debian: Debian) -> list[str]:
    return [mail["id"] for mail in json.loads(debian.run("callpro-relay queue list --json"))]


def add_customer(debian: Debian) -> None:
    debian.run("umask 077; echo geheim > /etc/callpro-relay/secrets/acme")
    write_rules(debian, "acme.nl", ROUTE)
    debian.run("systemctl restart callpro-relay")


def write_rules(debian: Debian, name: str, text: str) -> None:
    debian.run(f"cat > /etc/callpro-relay/routes.d/{name}.yaml <<'END'\n{text}END")


def listen_for_mail(debian: Debian) -> None:
    """A server where the customer's own should be."""
    debian.run("systemd-run --unit=sink python3 -W ignore -u -m smtpd -n -c DebuggingServer 127.0.0.1:2525")
    debian.run("timeout 20 sh -c 'until ss -ltn | grep -q :2525; do sleep 0.2; done'", code=None)


def test_it_works_as_soon_as_it_is_installed(debian: Debian) -> None:
    said = debian.run("dpkg -i /shared/new.deb")
    assert "did not start" not in said
    debian.run("callpro-relay doctor")  # it looks as root, and makes nothing that the relay could not write to
    assert debian.run("systemctl is-active callpro-relay; systemctl is-enabled callpro-relay") == "active\nenabled\n"
    assert "delivered" in debian.run("callpro-relay send --from you@try-out.example --to somebody@example.org")
    assert len(debian.run("ls /var/lib/callpro-relay/try-out/new").split()) == 1
    assert "550 5.7.1" in debian.run("callpro-relay send --from a@unknown.nl --to b@example.org", code=1)
    user = debian.run(f"stat -c %U /proc/$({PID})").strip()
    assert user != "root"
    assert debian.run("systemd-analyze verify --man=no callpro-relay.service callpro-relay.socket") == ""
    assert debian.run(f"grep -E '^Cap(Eff|Amb|Bnd)' /proc/$({PID})/status | grep -v ':.0*$'", code=1) == ""
    debian.run("callpro-relay check && systemctl reload callpro-relay && systemctl is-active callpro-relay")


def test_every_way_out_works_inside_the_unit(debian: Debian) -> None:
    python = Path(sys.prefix) / "bin" / "python"
    if "good" not in debian.run(f"{python} -c 'import httpx; print(\"good\")'", code=None):
        pytest.skip(f"{python} does not run on Debian's own Python")
    debian.run("dpkg -i /shared/new.deb")
    assert "NOT ARRIVED" not in debian.run(f"cd {ROOT} && {python} -B -m tests.package.ways_inside")


def test_secrets_that_the_unit_alone_has_hinder_no_check_no_reload_and_no_upgrade(debian: Debian) -> None:
    debian.run("dpkg -i /shared/new.deb")
    drop_in = "/etc/systemd/system/callpro-relay.service.d/ours.conf"
    debian.run(f"mkdir -p $(dirname {drop_in}); printf '[Service]\nEnvironment=MAILGUN_KEY=geheim\n' > {drop_in}")
    debian.run("systemctl daemon-reload")
    debian.run(f"printf '%s' '{ALERTS}' > /etc/callpro-relay/relay.yaml")
    add_customer(debian)
    write_rules(debian, "hooli.nl", ENV_ROUTE)
    assert "only readable in the running unit" in debian.run("callpro-relay check")
    debian.run("systemctl reload callpro-relay")
    assert debian.run("callpro-relay check --diff") == "No customer changes.\n"
    before = debian.run(PID)
    assert "was not restarted" not in debian.run("dpkg -i /shared/new.deb")
    assert debian.run(PID) not in (before, "0\n")

    write_rules(debian, "initech.nl", NEW_SECRET)
    debian.run("umask 077; echo geheim > /etc/callpro-relay/secrets/initech; callpro-relay check")
    debian.run("systemctl reload callpro-relay", code=1)
    assert (
        "credentials/callpro-relay.service/initech: No such file (a new one counts from the next restart)"
        in debian.journal()
    )
    debian.run("systemctl kill --signal=HUP --kill-who=main callpro-relay")
    debian.run("timeout 20 sh -c 'until test -e /var/lib/callpro-relay/told; do sleep 0.2; done'")
    debian.run("systemctl restart callpro-relay && systemctl reload callpro-relay")
    debian.run("useradd --no-create-home jan")
    said = debian.run("setpriv --reuid=jan --regid=jan --clear-groups callpro-relay doctor globex.nl")
    assert "not tried, for systemd:acme cannot be read here" in said
    assert "spool: the spool cannot be read" in said


def test_an_upgrade_keeps_what_ops_wrote_and_what_waits(debian: Debian) -> None:
    debian.run("dpkg -i /shared/older.deb")
    debian.run("echo '# jan was here' >> /etc/callpro-relay/routes.yaml")
    add_customer(debian)
    debian.run("callpro-relay send --from info@acme.nl --to jan@example.org --wait 5s", code=1)
    debian.run("callpro-relay send --from info@globex.nl --to piet@example.org --wait 5s", code=1)
    before, ids = debian.run(PID), waiting(debian)
    assert len(ids) == 2
    debian.run(f"cat > /run/knocking.py <<'END'\n{KNOCKING}END")
    debian.run("systemd-run --unit=knocking python3 /run/knocking.py")

    debian.run("dpkg --force-confold -i /shared/new.deb")
    debian.run(
        "systemctl kill --signal=INT knocking; timeout 20 sh -c 'until test -s /run/knocked; do sleep 0.2; done'"
    )
    knocked = json.loads(debian.run("cat /run/knocked"))
    assert knocked["refused"] == 0
    assert knocked["greeted"] > 5
    assert "0.1.0" in debian.run("dpkg-query -W -f '${Version}' callpro-relay")
    assert debian.run(PID) not in (before, "0\n")
    assert waiting(debian) == ids
    assert debian.run("tail -n 1 /etc/callpro-relay/routes.yaml") == "# jan was here\n"
    assert "As an older" not in debian.run("cat /etc/callpro-relay/routes.yaml.dpkg-dist")

    listen_for_mail(debian)
    debian.run("callpro-relay queue retry --route acme.nl")
    debian.run(f"timeout 60 sh -c 'until callpro-relay queue show {ids[0]} | grep -q delivered; do sleep 0.5; done'")


def test_a_spool_of_the_first_format_is_taken_along(debian: Debian) -> None:
    debian.run("dpkg -i /shared/older.deb && systemctl stop callpro-relay")
    debian.run(f"""rm -f {SPOOL}* && python3 - <<'END'
import os, sqlite3
spool = sqlite3.connect("{SPOOL}")
spool.executescript("PRAGMA journal_mode = WAL;" + open("/shared/format_1.sql").read())
spool.close()
owner = os.stat("/var/lib/private/callpro-relay")
os.chown("{SPOOL}", owner.st_uid, owner.st_gid)
END""")
    add_customer(debian)
    debian.run("systemctl stop callpro-relay")
    debian.run("dpkg --force-confold -i /shared/new.deb")
    assert debian.run("systemctl is-active callpro-relay") == "active\n"
    assert len(waiting(debian)) == 1
    listen_for_mail(debian)
    debian.run("callpro-relay queue retry --route acme.nl")
    debian.run("timeout 60 sh -c 'while callpro-relay queue list | grep -q acme; do sleep 0.5; done'")


def test_rules_that_the_new_version_cannot_read_leave_the_old_one_running(debian: Debian) -> None:
    debian.run("dpkg -i /shared/older.deb")
    before = debian.run(PID)
    debian.run("echo 'nonsense: 1' > /etc/callpro-relay/routes.d/bad.yaml")
    said = debian.run("dpkg --force-confold -i /shared/new.deb")
    assert "bad.yaml:1" in said
    assert "was not restarted" in said
    assert debian.run(PID) == before
    assert "delivered" in debian.run(
        "rm /etc/callpro-relay/routes.d/bad.yaml; callpro-relay send --from you@try-out.example --to b@example.org"
    )
    debian.run("systemctl restart callpro-relay")


def test_a_purge_never_takes_mail_that_waits(debian: Debian) -> None:
    debian.run("dpkg -i /shared/new.deb")
    add_customer(debian)
    debian.run("callpro-relay send --from info@acme.nl --to jan@example.org --wait 3s", code=1)
    debian.run("dpkg --remove callpro-relay")
    assert debian.run("systemctl is-active callpro-relay", code=None) in ("inactive\n", "failed\n")
    debian.run(f"test -e /etc/callpro-relay/routes.yaml -a -e {SPOOL}")
    buffer = SPOOL.replace("spool", "buffer.worker-2")  # a worker's buffer has the same form
    said = debian.run(f"mv {SPOOL} {buffer} && dpkg --purge callpro-relay")
    assert f"1 mails in {buffer} were never delivered" in said
    assert "/etc/callpro-relay/secrets is kept" in said
    debian.run(f"test -e {buffer} -a ! -e /etc/callpro-relay/routes.yaml -a ! -e /usr/lib/callpro-relay")

    debian.run(f"mv {buffer} {SPOOL} && dpkg -i /shared/new.deb")
    (kept,) = waiting(debian)
    debian.run(f"callpro-relay queue drop {kept} --yes")
    debian.run("rm -r /etc/callpro-relay/secrets/* /etc/callpro-relay/routes.d/*")
    assert "kept" not in debian.run("dpkg --purge callpro-relay")
    left = "/etc/callpro-relay /var/lib/callpro-relay /var/lib/private/callpro-relay /usr/lib/callpro-relay"
    debian.run(f"for path in {left} /lib/systemd/system/callpro-relay.service; do test ! -e $path || exit 1; done")
    assert debian.run("find /etc/systemd /var/lib/systemd -name '*callpro*'") == ""


def test_a_port_that_is_taken_does_not_fail_the_installation(debian: Debian) -> None:
    debian.run("systemd-run --unit=other python3 -m http.server -b 127.0.0.1 25")
    debian.run("timeout 20 sh -c 'until ss -ltn | grep -q :25; do sleep 0.2; done'", code=None)
    said = debian.run("dpkg -i /shared/new.deb")
    assert "did not start" in said
    assert debian.run("dpkg-query -W -f '${db:Status-Status}' callpro-relay") == "installed"
    assert "Address already in use" in debian.run("journalctl --no-pager -u callpro-relay.socket")
