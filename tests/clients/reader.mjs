// Reads Photon's events with the packages `ws` and `eventsource`, drops at random, resumes after the last
// sequence.
//
// usage: reader.mjs HOST:PORT socket|sse   each event as it came, one a line
//        reader.mjs --check                ends with 0 when the packages are there
// A line on standard input names the last sequence; once that was read it ends.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

// PHOTON_CLIENTS is the folder that .ci/run installs the packages into.
const require = createRequire(`${process.env.PHOTON_CLIENTS ?? process.cwd()}/`)
const WebSocket = require('ws')
const { EventSource } = require('eventsource')

const [address, way] = process.argv.slice(2)
let goal = Infinity
let last = 0
const out = (text) => process.stdout.write(`${text}\n`)
const some = () => 1 + Math.floor(Math.random() * 80)

// One connection, until it breaks, or until enough was read.
const socket = () =>
  new Promise((done) => {
    let left = some()
    const one = new WebSocket(`ws://${address}/api/v1/events?after=${last}`, ['photon.v1'])
    const quiet = setInterval(() => one.terminate(), 500)
    one.on('error', () => {})
    one.on('close', () => (clearInterval(quiet), done()))
    one.on('message', (data) => {
      // What comes after the dropping was not read.
      if (left === 0) return
      const text = data.toString()
      const message = JSON.parse(text)
      if (message.specversion) out(text)
      last = Number(message.sequence)
      left -= 1
      if (left === 0 || last >= goal) (left = 0), one.terminate()
    })
  })

const TYPES = ['operation.created', 'operation.started', 'agent.registered', 'bookmark', 'bye']

// An EventSource comes back by itself, with `Last-Event-ID`; now and then it is replaced by a new one.
const sse = () =>
  new Promise((done) => {
    let left = some()
    const url = `http://${address}/api/v1/events/stream?after=${last}`
    const one = new EventSource(url)
    const end = () => ((left = 0), clearTimeout(quiet), one.close(), done())
    // Longer than the two seconds that the server asks a client to wait.
    let quiet = setTimeout(end, 3000)
    one.onerror = () => {
      if (one.readyState === EventSource.CLOSED) end()
    }
    const heard = (event) => {
      if (left === 0) return
      const message = JSON.parse(event.data)
      if (event.lastEventId !== message.sequence) throw new Error(`id ${event.lastEventId}: ${event.data}`)
      if (message.specversion) out(event.data)
      last = Number(message.sequence)
      left -= 1
      if (left === 0 || last >= goal) end()
    }
    for (const type of TYPES) one.addEventListener(type, heard)
  })

if (address !== '--check') {
  createInterface({ input: process.stdin }).once('line', (line) => (goal = Number(line)))
  while (last < goal) {
    await (way === 'sse' ? sse() : socket())
    await new Promise((soon) => setTimeout(soon, 10))
  }
  process.stdout.write('', () => process.exit(0))
}
