// Sends one mail with nodemailer. Argument: JSON {port, envelope: {from, to}, mail: nodemailer's message, count}.
import nodemailer from "nodemailer";

const asked = JSON.parse(process.argv[2]);
const transport = nodemailer.createTransport({ host: "127.0.0.1", port: asked.port, secure: false, ignoreTLS: true, pool: true, maxConnections: 1 });
for (let i = 0; i < (asked.count ?? 1); i++) {
  const sent = await transport.sendMail({ ...asked.mail, envelope: asked.envelope });
  console.log(sent.response);
}
transport.close();
