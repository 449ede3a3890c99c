// Verifies a mail on standard input with mailauth. Arguments: DNS server (host:port), MAIL FROM.
// Prints JSON {dkim: [{domain, selector, algorithm, result}], dmarc: result}.
import { Resolver } from "node:dns/promises";
import { authenticate } from "mailauth";

const [server, sender] = process.argv.slice(2);
const resolver = new Resolver({ timeout: 5000, tries: 2 });
resolver.setServers([server]);

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const found = await authenticate(Buffer.concat(chunks), {
  ip: "192.0.2.1", helo: "relay.test", sender, mta: "receiver.test", trustReceived: false,
  disableArc: true, disableBimi: true, resolver: (name, type) => resolver.resolve(name, type),
});
const dkim = found.dkim.results.map((one) => ({
  domain: one.signingDomain, selector: one.selector, algorithm: one.algo, result: one.status?.result ?? "none",
}));
console.log(JSON.stringify({ dkim, dmarc: found.dmarc ? found.dmarc.status.result : "none" }));
