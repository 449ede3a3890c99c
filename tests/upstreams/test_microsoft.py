"""Microsoft's hosts are known by their whole names, and a password there is warned of."""

from __future__ import annotations

import pytest

from config.credentials import Secret
from upstreams.microsoft import mailbox_traits
from upstreams.smtp import SmtpSettings

HOSTS = {
    "smtp.office365.com": True,
    "SMTP.Office365.com.": True,
    "smtp-mail.outlook.com": True,
    "acme-nl.mail.protection.outlook.com": True,
    "acme-nl.e-v1.mx.microsoft": True,
    "smtp.notoffice365.com": False,
    "notoutlook.com": False,
    "smtp.acme.nl": False,
    "outlook.com.acme.nl": False,
}


@pytest.mark.parametrize("host", HOSTS)
def test_a_password_at_microsoft_is_warned_of(host: str) -> None:
    settings = SmtpSettings(host=host, username="me", password=Secret("env:P", "hunter2"))
    warnings = [fault for fault in settings.faults() if fault.key == "password"]
    assert bool(warnings) is HOSTS[host]
    assert all(fault.warning and "end of December 2026" in fault.wrong for fault in warnings)
    assert not any("hunter2" in fault.wrong + fault.mend for fault in warnings)
    assert bool(settings.traits().volume) is HOSTS[host]


def test_a_mailbox_gives_the_return_path() -> None:
    assert mailbox_traits("t", "info@Acme.nl").return_path == "acme.nl"
    assert mailbox_traits("t", "Info@Münster.nl").mailbox == "info@xn--mnster-3ya.nl"
    by_id = mailbox_traits("t", "00001111-aaaa-2222-bbbb-3333cccc4444")
    assert mailbox_traits("t", None).return_path == by_id.return_path
    assert by_id.mailbox == ""
