// Prints, for each JSON line of standard input, the TwiML that Twilio's library for Node writes.
const path = require('path')
const { MessagingResponse } = require(path.join(process.env.SIGNERS, 'node/node_modules/twilio')).twiml

for (const line of require('fs').readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
  const { body, media, attributes } = JSON.parse(line)
  const response = new MessagingResponse()
  const message = response.message(attributes)
  if (body) message.body(body)
  for (const url of media) message.media(url)
  console.log(JSON.stringify(response.toString()))
}
