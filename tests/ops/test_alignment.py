"""What `route` expects of DMARC: relations between domains, and every real kind's facts from the provider pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.loading import load_rules
from ops.alignment import Alignment, Relation, align, relation
from ops.explain import explain
from upstreams import KINDS
from upstreams.traits import Traits

SAME, RELAXED, PERHAPS, NONE = Relation.SAME, Relation.RELAXED, Relation.PERHAPS, Relation.NONE


@pytest.mark.parametrize(
    ("domain", "from_domain", "expected"),
    [
        ("acme.nl", "acme.nl", SAME),
        ("mail.acme.nl", "acme.nl", RELAXED),
        ("acme.nl", "a.b.acme.nl", RELAXED),
        ("mail.acme.nl", "shop.acme.nl", PERHAPS),
        ("acme.co.uk", "globex.co.uk", PERHAPS),
        ("acme.nl", "globex.nl", NONE),
        ("notacme.nl", "acme.nl", NONE),
        ("acme.nl", "acme.example", NONE),
    ],
)
def test_relations(domain: str, from_domain: str, expected: Relation) -> None:
    assert relation(domain, from_domain) is expected


LABELS = st.lists(st.sampled_from(["a", "b", "nl"]), min_size=1, max_size=4).map(".".join)


@given(LABELS, LABELS)
def test_a_relation_is_mutual(one: str, other: str) -> None:
    assert relation(one, other) is relation(other, one)


def test_the_null_sender_is_no_help_to_from() -> None:
    found = align("out", Traits(), "acme.nl", "", ("acme.nl",))
    assert (found.spf, found.dkim) == (NONE, SAME)
    assert found.told[0] == "can pass by DKIM alone"


def test_two_names_below_one_parent_are_not_promised() -> None:
    found = align("out", Traits(), "shop.acme.nl", "mail.acme.nl", ())
    assert found.told[0].startswith("may pass")
    assert "only if all below acme.nl is one organisation's" in found.told[1]


def test_with_nothing_aligned_it_cannot_pass() -> None:
    found = align("out", Traits(return_path=""), "acme.nl", "acme.nl", ("callcenter.nl",))
    assert found.told[0].startswith("cannot pass")


ENTRA = "tenant: acme.nl, client_id: 00001111-aaaa-2222-bbbb-3333cccc4444, client_secret: 'env:KEY'"
WAYS = {
    "{type: smtp, host: smtp.acme.nl, username: me, password: 'env:KEY'}": (SAME, SAME),
    "{type: smtp, host: mail.callcenter.nl}": (SAME, SAME),
    "{type: connector, host: acme-nl.mail.protection.outlook.com}": (SAME, SAME),
    f"{{type: graph, {ENTRA}}}": (SAME, SAME),
    f"{{type: graph, {ENTRA}, mailbox: info@globex.nl}}": (NONE, SAME),
    f"{{type: smtp_oauth, {ENTRA}, mailbox: info@acme.nl}}": (SAME, SAME),
    "{type: sendgrid, api_key: 'env:KEY'}": (RELAXED, SAME),
    "{type: sendgrid, api_key: 'env:KEY', method: api}": (RELAXED, SAME),
    "{type: mailgun, domain: mg.acme.nl, api_key: 'env:KEY'}": (RELAXED, RELAXED),
    "{type: mailgun, domain: mg.callcenter.nl, api_key: 'env:KEY'}": (NONE, NONE),
    "{type: campaign_monitor, client_id: abc, api_key: 'env:KEY'}": (NONE, SAME),
}
DKIM = ", dkim: {domain: acme.nl, selector: s1, key: 'env:KEY'}"


def alignment(folder: Path, upstream: str, dkim: str) -> Alignment:
    (folder / "routes.yaml").write_text(
        f"upstreams: {{out: {upstream}}}\nroutes: [{{from: acme.nl, via: out{dkim}}}]\n", "utf-8"
    )
    rules = load_rules(folder, {name: kind.settings for name, kind in KINDS.items()})
    (found,) = explain(rules, "info@acme.nl").alignments
    return found


@pytest.mark.parametrize("upstream", WAYS)
def test_every_kind_by_its_page(upstream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "SG.key")
    found = alignment(tmp_path, upstream, DKIM)
    assert (found.spf, found.dkim) == WAYS[upstream]
    ours = "our signature" in " ".join(found.told)
    assert ours == ("smtp," in upstream), found.told
    if ours:
        assert alignment(tmp_path, upstream, "").dkim is NONE


def test_always_signs_beside_the_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "SG.key")
    always = DKIM.replace("}", ", always: true}")
    mailgun = alignment(tmp_path, "{type: mailgun, domain: mg.callcenter.nl, api_key: 'env:KEY'}", always)
    assert (mailgun.spf, mailgun.dkim) == (NONE, SAME)
    graph = alignment(tmp_path, f"{{type: graph, {ENTRA}}}", always)
    assert "our signature" not in " ".join(graph.told)
