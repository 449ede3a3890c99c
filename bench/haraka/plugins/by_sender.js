// What bench/compare asks of every peer: take all mail from here, and send it on by the domain of the sender.
'use strict'

exports.register = function () {
  this.upstreams = this.config.get('upstreams.json')
}

exports.hook_connect = function (next, connection) {
  connection.relaying = true
  next(OK)
}

exports.hook_mail = (next) => next(OK)

exports.hook_rcpt = (next) => next(OK)

exports.hook_get_mx = function (next, hmail) {
  const port = this.upstreams[hmail.todo.mail_from.host]
  if (port) return next(OK, [{ priority: 0, exchange: '127.0.0.1', port }])
  next(DENY, 'no upstream for that sender')
}

// No look-up of the client's name: the other peers make none, and the machine of a benchmark may have no resolver.
exports.hook_lookup_rdns = (next) => next(OK, 'localhost')
