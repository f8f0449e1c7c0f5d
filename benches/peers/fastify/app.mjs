// Fastify's onResponse hooks: node app.mjs PORT LOG
import { appendFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'

const [port, log] = process.argv.slice(2)
const app = Fastify()
const DOWNLOAD = Buffer.alloc(20 << 20, 'x')
let count = 0

const note = what => {
  const now = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n
  appendFileSync(log, `${what} ${now}\n`)
}

async function * chunks () {
  for (let index = 0; index < 20; index++) {
    await sleep(25)
    yield DOWNLOAD.subarray(0, 64 << 10)
  }
}

const waits = async () => {
  await sleep(300)
  return 'ok'
}

const lasting = async () => {
  note('began')
  await sleep(500)
  note('finished')
}

const failing = async () => {
  throw new Error('the first one fails, on purpose')
}

app.get('/plain', async () => 'ok')
app.get('/defer', { onResponse: async () => { count++ } }, async () => 'ok')
app.get('/download', { onResponse: async () => note('download') }, async () => DOWNLOAD)
app.get('/waits-then-defers', { onResponse: async () => note('waits-then-defers') }, waits)
app.get('/defers-then-waits', { onResponse: async () => note('defers-then-waits') }, waits)
app.get('/stream', { onResponse: async () => note('stream') }, async () => Readable.from(chunks()))
app.get('/lasts', { onResponse: lasting }, async () => 'ok')
app.get('/fails-first', { onResponse: [failing, async () => note('second')] }, async () => 'ok')

process.on('SIGTERM', () => app.close())
await app.listen({ host: '127.0.0.1', port: Number(port) })
