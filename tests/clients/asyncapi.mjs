// Reads an AsyncAPI document from standard input with the package `@asyncapi/parser`; prints each error and ends with 1
// if there is one.
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'

// PHOTON_CLIENTS is the folder that .ci/run installs the packages into.
const require = createRequire(`${process.env.PHOTON_CLIENTS ?? process.cwd()}/`)
const { Parser } = require('@asyncapi/parser')

const { document, diagnostics } = await new Parser().parse(readFileSync(0, 'utf8'))
// 0 is an error, 1 a warning; what is less is advice.
const errors = diagnostics.filter(({ severity }) => severity <= 1)
for (const { code, path, message } of errors) console.log(`${code} at /${path.join('/')}: ${message}`)
process.exit(document && errors.length === 0 ? 0 : 1)
