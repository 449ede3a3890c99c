CREATE TABLE mail (
  id INTEGER PRIMARY KEY, route TEXT NOT NULL, sender TEXT NOT NULL, received_at REAL NOT NULL, size INTEGER NOT NULL,
  peer TEXT NOT NULL, helo TEXT NOT NULL, message_id TEXT, repairs TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, settled_at REAL) STRICT;
CREATE INDEX settled_by_route ON mail (route) WHERE settled_at IS NOT NULL;
CREATE TABLE waiting (
  id INTEGER PRIMARY KEY, route TEXT NOT NULL, due_at REAL NOT NULL, size INTEGER NOT NULL,
  leased INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX waiting_by_due ON waiting (route, due_at);
CREATE INDEX waiting_by_route ON waiting (route);
CREATE TABLE content (mail INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
CREATE TABLE recipient (
  mail INTEGER NOT NULL, address TEXT NOT NULL, domain TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'waiting',
  doubts INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (mail, address)) STRICT, WITHOUT ROWID;
CREATE INDEX recipient_by_domain ON recipient (domain, mail);
CREATE TABLE event (
  number INTEGER PRIMARY KEY, mail INTEGER NOT NULL, at REAL NOT NULL, text TEXT NOT NULL,
  upstream TEXT, seconds REAL, results TEXT) STRICT;
CREATE INDEX event_by_mail ON event (mail);
PRAGMA application_id = 1129337427;
PRAGMA user_version = 1;
INSERT INTO mail VALUES
  (3565158400000000001, 'acme.nl', 'info@acme.nl', 1700000000.0, 27, '127.0.0.1', 'callpro', '<1@acme.nl>', '', 1, NULL),
  (3565158400000000002, 'acme.nl', 'info@acme.nl', 1700000001.0, 27, '127.0.0.1', 'callpro', '<2@acme.nl>', 'date', 1,
   1700000002.0);
INSERT INTO waiting VALUES (3565158400000000001, 'acme.nl', 1700000060.0, 27, 1);
INSERT INTO content VALUES (3565158400000000001, CAST('From: info@acme.nl' || char(13, 10, 13, 10) || 'Dag' || char(13, 10) AS BLOB));
INSERT INTO recipient VALUES
  (3565158400000000001, 'jan@example.org', 'example.org', 'waiting', 1),
  (3565158400000000002, 'piet@example.org', 'example.org', 'delivered', 0);
INSERT INTO event VALUES
  (1, 3565158400000000001, 1700000001.0, '', 'acme-login', 0.5,
   '[{"to": ["jan@example.org"], "word": "unknown", "reply": "no answer", "stage": "content"}]'),
  (2, 3565158400000000002, 1700000001.5, '', 'acme-login', 0.5,
   '[{"to": ["piet@example.org"], "word": "sent", "reply": "250 Ok", "stage": "content", "code": 250}]');
